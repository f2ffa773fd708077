"""A GPU that is none: the calls of `cuda.bindings.runtime` over memory of the host, with a clock of its own.

Work given to a stream waits there until somebody synchronises or asks for an event; only then it is done, in the order
of a GPU with one engine for copies in, one for copies out and one for kernels. So whoever reads a result before its
event, gives a buffer back while work needs it, or writes what a copy has yet to read, gets what he deserves.
"""

import ctypes
from collections import Counter, deque

import numpy as np
from cuda.bindings import runtime as real

Code = real.cudaError_t
OK = (Code.cudaSuccess,)
DURATION_MS = {"copy in": 1.0, "kernel": 4.0, "copy out": 1.0}


class Work:
    """One thing on a stream: what it takes, what it does, and what it must not outlive."""

    def __init__(self, engine, act, needs=(), name=""):
        self.engine, self.act, self.needs, self.name = engine, act, needs, name


class Stream:
    def __init__(self, number):
        self.number, self.queue, self.free_at, self.capture, self.invalid = number, deque(), 0.0, None, False

    def __int__(self):
        return self.number


class Event:
    def __init__(self, timing):
        self.timing, self.last = timing, None


class Graph:
    def __init__(self, work):
        self.work = work


class FakeRuntime:
    """Stands in for the module; what is not here is not used.

    Args:
        count: GPUs.
        driver: CUDA version of the driver, 0 for none.
        capability: Compute capability.
    """

    def __init__(self, count=1, driver=13000, capability=(8, 9)):
        self.count, self.driver, self.capability = count, driver, capability
        self.calls = []
        self.alive = {}
        self.clock = Counter()
        self.log = []
        self._failures = {}
        self._numbers = 100
        self._streams = {}
        for name in [
            "cudaError_t",
            "cudaMemcpyKind",
            "cudaStreamCaptureMode",
            "cudaStreamNonBlocking",
            "cudaEventBlockingSync",
            "cudaEventDisableTiming",
            "cudaHostAllocDefault",
            "cudaHostRegisterDefault",
            "cudaGetErrorString",
        ]:
            setattr(self, name, getattr(real, name))

    # What a test says and asks ----------------------------------------------------------------------------------

    def fail(self, call, code="cudaErrorUnknown", after=0, times=1):
        """Let a call fail: the first `after` times it works, then it fails `times` times."""
        self._failures[call] = [after, times, getattr(Code, code)]

    def count_alive(self):
        """What was made and not given back, by kind."""
        return dict(Counter(kind for kind, _ in self.alive.values()))

    def kernel(self, handle, act, needs):
        """Give a kernel to a stream, as a library does."""
        return self._give(self._streams[handle], Work("kernel", act, needs, "kernel"))

    # The GPU ----------------------------------------------------------------------------------------------------

    def _begin(self, call):
        self.calls.append(call)
        failure = self._failures.get(call)
        if failure is None:
            return None
        if failure[0] > 0:
            failure[0] -= 1
            return None
        if failure[1] == 0:
            return None
        failure[1] -= 1
        return failure[2]

    def _make(self, kind, thing, key=None):
        self._numbers += 1
        self.alive[key if key is not None else id(thing)] = (kind, thing)
        return thing

    def _drop(self, key, kind):
        assert self.alive[key][0] == kind, f"{kind} given back twice, or it is a {self.alive[key][0]}"
        for stream in self._streams.values():
            for work in stream.queue:
                assert key not in work.needs, f"{kind} given back while {work.name} needs it"
        del self.alive[key]

    def _give(self, stream, work):
        assert id(stream) in self.alive, "work given to a stream that is no more"
        if stream.capture is not None:
            stream.capture.append(work)
            return True
        stream.queue.append(work)
        return True

    def _ready(self, stream):
        """When the first work of a stream can start; None where it waits for another."""
        work = stream.queue[0]
        start = stream.free_at
        if work.engine == "await":
            token = work.act
            return (
                None if token is not None and token["at"] is None else max(start, token["at"] if token else 0)
            )
        return max(start, self.clock[work.engine]) if work.engine in DURATION_MS else start

    def _step(self):
        """Do the work that can start first; of several the newest stream's, which nobody should rely on."""
        heads = [
            (at, -stream.number, stream)
            for stream in self._streams.values()
            if stream.queue and (at := self._ready(stream)) is not None
        ]
        assert heads, "the GPU waits for ever"
        at, _, stream = min(heads, key=lambda head: head[:2])
        work = stream.queue.popleft()
        for key in work.needs:
            assert key in self.alive, f"{work.name} runs on what was given back"
        if work.engine in DURATION_MS:
            end = at + DURATION_MS[work.engine]
            self.clock[work.engine] = end
            self.log.append((work.engine, stream.number, at, end))
            work.act()
            stream.free_at = end
        elif work.engine == "record":
            stream.free_at = at
            work.act["at"] = at
        else:
            stream.free_at = at

    def _finish(self, stream):
        while stream.queue:
            self._step()

    # Its calls --------------------------------------------------------------------------------------------------

    def cudaGetDeviceCount(self):
        if code := self._begin("cudaGetDeviceCount"):
            return code, None
        if not self.driver:
            return Code.cudaErrorInsufficientDriver, None
        if self.driver < 13000:
            return Code.cudaErrorInsufficientDriver, None
        return (Code.cudaErrorNoDevice, None) if not self.count else (*OK, self.count)

    def cudaDriverGetVersion(self):
        return *OK, self.driver

    def cudaRuntimeGetVersion(self):
        return *OK, 13000

    def cudaGetLastError(self):
        return OK

    def cudaSetDevice(self, device):
        return (self._begin("cudaSetDevice") or OK[0],)

    def cudaGetDeviceProperties(self, device):
        if code := self._begin("cudaGetDeviceProperties"):
            return code, None
        properties = real.cudaDeviceProp()
        properties.name = b"NVIDIA Pretended".ljust(256, b"\0")
        properties.major, properties.minor = self.capability
        return *OK, properties

    def cudaDeviceGetPCIBusId(self, length, device):
        if code := self._begin("cudaDeviceGetPCIBusId"):
            return code, None
        return *OK, b"0000:3B:00.0\0".ljust(length)

    def cudaMemGetInfo(self):
        code = self._begin("cudaMemGetInfo")
        return (code, None, None) if code else (*OK, 10**9, 8 * 10**9)

    def cudaStreamCreateWithFlags(self, flags):
        if code := self._begin("cudaStreamCreateWithFlags"):
            return code, None
        assert flags == real.cudaStreamNonBlocking, "the default stream would be waited for"
        self._numbers += 1
        stream = self._make("stream", Stream(self._numbers))
        self._streams[stream.number] = stream
        return *OK, stream

    def cudaStreamDestroy(self, stream):
        if code := self._begin("cudaStreamDestroy"):
            return (code,)
        self._finish(stream)
        self._drop(id(stream), "stream")
        del self._streams[stream.number]
        return OK

    def cudaStreamSynchronize(self, stream):
        if code := self._begin("cudaStreamSynchronize"):
            return (code,)
        if stream.capture is not None:
            stream.invalid = True
            return (Code.cudaErrorStreamCaptureUnsupported,)
        self._finish(stream)
        return OK

    def cudaStreamWaitEvent(self, stream, event, flags):
        if code := self._begin("cudaStreamWaitEvent"):
            return (code,)
        self._give(stream, Work("await", event.last, (id(event),), "await"))
        return OK

    def cudaEventCreateWithFlags(self, flags):
        if code := self._begin("cudaEventCreateWithFlags"):
            return code, None
        return *OK, self._make("event", Event(not flags & real.cudaEventDisableTiming))

    def cudaEventDestroy(self, event):
        if code := self._begin("cudaEventDestroy"):
            return (code,)
        self._drop(id(event), "event")
        return OK

    def cudaEventRecord(self, event, stream):
        if code := self._begin("cudaEventRecord"):
            return (code,)
        event.last = {"at": None, "stream": stream}
        self._give(stream, Work("record", event.last, (id(event),), "record"))
        return OK

    def cudaEventQuery(self, event):
        if code := self._begin("cudaEventQuery"):
            return (code,)
        if event.last is not None and event.last["at"] is None:
            self._step()
            return (Code.cudaErrorNotReady,)
        return OK

    def cudaEventSynchronize(self, event):
        if code := self._begin("cudaEventSynchronize"):
            return (code,)
        while event.last is not None and event.last["at"] is None:
            self._step()
        return OK

    def cudaEventElapsedTime(self, start, end):
        if code := self._begin("cudaEventElapsedTime"):
            return code, None
        if not (start.timing and end.timing):
            return Code.cudaErrorInvalidResourceHandle, None
        if start.last["at"] is None or end.last["at"] is None:
            return Code.cudaErrorNotReady, None
        return *OK, end.last["at"] - start.last["at"]

    def _memory(self, call, kind, size):
        if code := self._begin(call):
            return code, None
        array = np.full(size, 0xA5, np.uint8)
        self._make(kind, array, key=(kind, array.ctypes.data))
        return *OK, array.ctypes.data

    def cudaMalloc(self, size):
        return self._memory("cudaMalloc", "device", size)

    def cudaHostAlloc(self, size, flags):
        return self._memory("cudaHostAlloc", "pinned", size)

    def cudaFree(self, address):
        if code := self._begin("cudaFree"):
            return (code,)
        self._drop(("device", address), "device")
        return OK

    def cudaFreeHost(self, address):
        if code := self._begin("cudaFreeHost"):
            return (code,)
        self._drop(("pinned", address), "pinned")
        return OK

    def cudaHostRegister(self, address, size, flags):
        if code := self._begin("cudaHostRegister"):
            return (code,)
        assert address % 4096 == 0
        assert size % 4096 == 0
        for kind, (start, length) in [entry for entry in self.alive.values() if entry[0] == "registered"]:
            assert kind == "registered"
            if start < address + size and address < start + length:
                return (Code.cudaErrorHostMemoryAlreadyRegistered,)
        self._make("registered", (address, size), key=("registered", address))
        return OK

    def cudaHostUnregister(self, address):
        if code := self._begin("cudaHostUnregister"):
            return (code,)
        if ("registered", address) not in self.alive:
            return (Code.cudaErrorHostMemoryNotRegistered,)
        self._drop(("registered", address), "registered")
        return OK

    def _place(self, address, size, kinds):
        """The memory that a range lies in."""
        for key, (kind, thing) in self.alive.items():
            if kind not in kinds:
                continue
            start, length = thing if kind == "registered" else (thing.ctypes.data, thing.nbytes)
            if start <= address and address + size <= start + length:
                return key
        raise AssertionError(f"{size} bytes at {address:#x} are not of {' or '.join(kinds)}")

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        if code := self._begin("cudaMemcpyAsync"):
            return (code,)
        into_gpu = kind == real.cudaMemcpyKind.cudaMemcpyHostToDevice
        device, host = (target, source) if into_gpu else (source, target)
        needs = self._place(device, size, ["device"]), self._place(host, size, ["pinned", "registered"])
        name = "copy in" if into_gpu else "copy out"
        self._give(stream, Work(name, lambda: ctypes.memmove(target, source, size), needs, name))
        return OK

    def cudaStreamBeginCapture(self, stream, mode):
        if code := self._begin("cudaStreamBeginCapture"):
            return (code,)
        assert mode == real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        stream.capture, stream.invalid = [], False
        return OK

    def cudaStreamEndCapture(self, stream):
        assert stream.capture is not None, "no capture to end"
        work, stream.capture = stream.capture, None
        if code := self._begin("cudaStreamEndCapture"):
            return code, None
        if stream.invalid:
            return Code.cudaErrorStreamCaptureInvalidated, None
        return *OK, self._make("graph", Graph(work))

    def cudaGraphInstantiate(self, graph, flags):
        if code := self._begin("cudaGraphInstantiate"):
            return code, None
        return *OK, self._make("executable", Graph(list(graph.work)))

    def cudaGraphLaunch(self, executable, stream):
        if code := self._begin("cudaGraphLaunch"):
            return (code,)
        for work in executable.work:
            self._give(stream, Work(work.engine, work.act, (*work.needs, id(executable)), "graph"))
        return OK

    def cudaGraphDestroy(self, graph):
        if code := self._begin("cudaGraphDestroy"):
            return (code,)
        self._drop(id(graph), "graph")
        return OK

    def cudaGraphExecDestroy(self, executable):
        if code := self._begin("cudaGraphExecDestroy"):
            return (code,)
        self._drop(id(executable), "executable")
        return OK


class FakeNetwork:
    """Inverts the picture inside the field, one kernel an inference; what it says of it shows what it was given.

    Args:
        fake: The GPU.
        addresses: By the graph's names.
        sizes: Bytes of each.
    """

    open_now = 0

    def __init__(self, fake, addresses, sizes):
        self._fake = fake
        self._at = dict(addresses)
        self._sizes = sizes
        self.refuses = 0
        self._fake._make("context", self)

    def _view(self, name, dtype=np.uint8):
        memory = (ctypes.c_uint8 * self._sizes[name]).from_address(self._at[name])
        return np.frombuffer(memory, np.uint8).view(dtype)

    def _infer(self):
        live, field = self._view("live"), self._view("field")
        self._view("synthetic")[:] = 255 - live
        self._view("attention")[:] = field & live[:: live.size // field.size]
        table, inverse = self._view("table", np.float32), self._view("inverse", np.float32)
        mean = float(live.astype(float).mean()) / 255
        self._view("statistics", np.float32)[5:] = 0.0
        self._view("statistics", np.float32)[:5] = [1.0, table[0], inverse[-1], mean, field.mean() / 255]

    def execute_async_v3(self, stream):
        """As an `IExecutionContext`: False where it refuses."""
        if self.refuses:
            self.refuses -= 1
            return False
        needs = tuple(("device", address) for address in self._at.values())
        return self._fake.kernel(stream, self._infer, (*needs, id(self)))

    def enqueue(self, stream):
        """As an `Inference`."""
        from engines.errors import EngineError

        if not self.execute_async_v3(stream):
            raise EngineError("the network refuses")

    def close(self):
        self._fake._drop(id(self), "context")
