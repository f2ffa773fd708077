"""One network, several runtimes.

Map of the room:

    engine.py              the contract: EngineSpec, Engine, Slot, FrameStatistics
    open.py                `open_engine`: the first usable runtime, and why others were skipped
    model.py               the ONNX file and its sidecar; `load_model`
    planes.py              the caller's arrays as the graph's bytes; grey tables and field
    openvino_engine.py     the CPU engine
    onnxruntime_engine.py  the second CPU engine
    graph.py               network -> ONNX with everything per pixel inside
    fold.py                the source graph for one frame size: shapes become numbers
    typed.py               ... and with its types in the graph: fp16 network, fp32 around it
    plan.py                typed graph -> TensorRT plan, with a census of its layers
    tensorrt_log.py        TensorRT's log as part of ours
    export.py              `contrastream export`: a training run -> a model file that draws what torch draws
    config.py              the settings of that command
    reference.py           the graph once more in torch
    parity.py              any engine against that reference
    errors.py              what can be wrong with a model or a runtime
    models/                the shipped ONNX files and their cards
"""
