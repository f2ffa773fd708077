"""`contrastream bench WORKLOAD`: one workload each, opened late."""

from bench.config import (
    CompareConfig,
    EngineConfig,
    GlassConfig,
    LiveConfig,
    PeersConfig,
    ScaleConfig,
    SoakConfig,
    TransportConfig,
)
from bench.methods_config import MethodsConfig


def bench(
    workload: LiveConfig
    | EngineConfig
    | TransportConfig
    | ScaleConfig
    | SoakConfig
    | PeersConfig
    | GlassConfig
    | MethodsConfig
    | CompareConfig,
) -> int:
    """Run a workload; returns the command's exit status."""
    match workload:
        case LiveConfig():
            from bench.live import bench_live

            return bench_live(workload)
        case EngineConfig():
            from bench.engine import bench_engine

            return bench_engine(workload)
        case TransportConfig():
            from bench.transport import bench_transport

            return bench_transport(workload)
        case ScaleConfig():
            from bench.scale import bench_scale

            return bench_scale(workload)
        case SoakConfig():
            from bench.soak import bench_soak

            return bench_soak(workload)
        case PeersConfig():
            from bench.peers import bench_peers

            return bench_peers(workload)
        case GlassConfig():
            from bench.glass import bench_glass

            return bench_glass(workload)
        case MethodsConfig():
            from bench.methods import bench_methods

            return bench_methods(workload)
        case CompareConfig():
            from bench.compare import compare

            return compare(workload.before, workload.after, across=workload.across, out=workload.out)
