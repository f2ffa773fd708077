"""One network, several runtimes.

Map of the room:

    engine.py              the contract: EngineSpec, Engine, Slot, FrameStatistics
    base.py                what every engine does alike: slots, settings, a slot used in turn
    arrays.py              `ArrayEngine`: one array after another, for scripts and notebooks
    open.py                `open_engine`: the first usable runtime, and why others were skipped
    model.py               the ONNX file and its sidecar; `load_model`
    trust.py               which model files may be opened: shipped, made here, or trusted by the user
    onnx_parts.py          no weights in other files, and where the weights lie, seen without a library
    adapted.py             the model adapted to one patient: the same file with other weights
    planes.py              the caller's arrays as the graph's bytes; grey tables and field
    openvino_engine.py     the CPU engine
    onnxruntime_engine.py  the second CPU engine
    graph.py               network -> ONNX with everything per pixel inside
    graph_writer.py        ... node by node, with what every runtime executes alike
    network_graph.py       ... with the generator inside, traced by torch
    adopt.py               ... with a network of your own inside
    fold.py                the source graph for one frame size: shapes become numbers
    typed.py               ... and with its types in the graph: fp16 network, fp32 around it
    audit.py               what a typed graph promises, read back from it
    overflow.py            how far a network's values stay from what fp16 can hold
    obtain.py              `obtain_plan`: the plan for one frame size, kept or built now
    plan.py                typed graph -> TensorRT plan, with a census of its layers
    plan_cache.py          plans kept for the next start: locked, whole, never trusted unseen; and blobs beside them
    plan_facts.py          what a plan was built for: its key and sidecar
    plan_room.py           which plans are kept, which go first
    cache_folder.py        a private folder of derived files: lock, atomic write
    build.py               `contrastream build`: a plan ahead of its first start; list, inspect, clear
    plan_table.py          ... as tables
    untaught.py            a model by name; a preset without a shipped one, with random weights, to measure it
    interrupts.py          Ctrl-C while a library builds: told to it where it asks
    elapsed.py             what is being waited for, on a terminal
    torch_engine.py        the reference's graph on a GPU, in half precision; torch_slots.py: streams, CUDA graphs
    torch_probe.py         whether torch can be an engine here, asked before it is imported
    driver.py              what the NVIDIA driver says of its GPUs
    tensorrt_engine.py     TensorRT and TensorRT-RTX, the module being a parameter
    tensorrt_log.py        TensorRT's log as part of ours
    cuda_slots.py          frames in flight on one GPU: copy-in, inference, copy-out, each on its slot's stream
    cuda_graph.py          an inference captured, to be launched as one
    page_lock.py           the ring page-locked where it lies, so that copies need no host
    cuda_calls.py          what an engine asks of CUDA
    cuda.py                ... by cuda-bindings, each failure a sentence
    pycuda_calls.py        ... in a lab's pycuda context
    export.py              `contrastream export`: a training run -> a model file that draws what torch draws
    config.py              the settings of export and build
    reference.py           the graph once more in torch
    parity.py              any engine against that reference
    drawing.py             an engine as a plain function
    site_precision.py      every engine that is usable here on a site's frames; int8 tried
    quantize.py            source model -> int8 for the CPU, by NNCF on a site's frames
    qdq.py                 ... -> explicit Q/DQ for TensorRT, by the same way
    int8.py                such models kept and found again
    errors.py              what can be wrong with a model or a runtime
    models/                the shipped ONNX files and their cards
"""
