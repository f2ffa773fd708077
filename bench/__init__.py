"""Frames per second and p99 latency, always with the machine they came from; and what a model draws.

Map of the room:

    config.py              settings of the commands, standard library only; evaluate_config.py, methods_config.py
    errors.py              what cannot be measured
    workloads.py           `bench WORKLOAD`: which file runs it
    live.py                `bench live`: the whole path, paced; report.py makes its report, beside the aims
                           of targets.py; report_table.py shows it
    outputs.py             what a measurement leaves behind: JSON, samples.py, markdown.py, page.py with its plots.py;
                           summaries.py finds the figures of any report
    engine.py              `bench engine`: the engine alone, serial and saturated, beside machine_limits.py
    transport.py           `bench transport`: ring and wire without an engine
    scale.py               `bench scale`: streams on one engine until one misses
    soak.py                `bench soak`: hours of it; soak_client.py sees the frames in constant memory (histogram.py),
                           soak_watch.py the processes; soak_report.py says what drifts,
                           soak_plots.py draws it
    peers.py               `bench peers`: what people use instead, in turns; contestant.py as the benchmark sees one,
                           peer.py what they share, peer_loop.py, peer_holoscan.py, peer_pyzmq.py, peer_ours.py each one,
                           peer_source.py their frames; peers_report.py gathers, peers_table.py shows
    alone.py               the engine and the source alone, in a process of their own; worker.py runs such a process
    floor.py               the same hops without the product, in the same run; witness.py sees the machine stall
    compare.py             `bench compare`: two reports, figure by figure; compare_runs.py says what may be claimed,
                           micro_report.py reads pytest-benchmark's files
    flow_log.py            a run as Holoscan's data-flow log, an engine as trtexec's summary
    stats.py               intervals, slopes
    machine.py             what this machine is
    doctor.py              `doctor`: what works here; checks.py and checks_host.py hold the checks
    evaluate.py            `evaluate`: a model's figures as JSON, a table and a page of pictures
    phantom_evaluation.py  on phantom patients, whose truth is known
    archive_evaluation.py  on real frames, as an independent segmenter sees them
    patient.py             what an adapted model draws on phantom patients; patient_gate.py: which frames its gate refuses;
                           patient_swap.py: a running stream takes an adaptation over and gives it up
    patient_real.py        the same on real runs, against roadmaps; patient_real_run.py splits their heartbeats,
                           patient_real_roadmaps.py: all taught frames at once, as wide; patient_real_probe.py asks whether M reads the
                           mending, patient_real_sheet.py shows a person what was drawn
    judging.py             figures of many frames at once, with intervals by patient
    methods.py             `bench methods`: CAS-GAN, its rivals and its ablations under one protocol; methods_measure.py the
                           figures, methods_loops.py on real loops, methods_pictures.py what was drawn, methods_budget.py minutes
    methods_results.py     its small files read back; methods_table.py Tables I and II: `evaluate --table`
    drawer.py              one way to draw for ONNX files and checkpoints
    evaluation_table.py    the figures for a terminal; gallery.py the page of pictures
    progress.py            stages and bars on stderr
"""
