// A client in C++, written from the text of stream/wire.py alone: receives a stream and prints a line for each frame.
//
//     g++ -std=c++17 -O2 examples/client.cpp -lzmq -o client        (Debian: libzmq3-dev cppzmq-dev)
//     ./client ipc:///tmp/contrastream-0/main 10                    (the address that `contrastream run` prints)
//     ./client --file message.bin                                   one message out of a file, for tests
//
// Each line: sequence, publication, state, reason, rows, columns, bits, photometric, rate, and for each plane that came the
// sum of its samples. Exit status 0; 2 with one line on stderr for a message that is none of this format.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>
#include <zmq.hpp>

namespace {

constexpr std::size_t kCore = 192;
constexpr std::uint32_t kMaxSide = 2048;

struct Plane {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
};

struct Frame {
    std::uint64_t sequence, publication, due_ns, published_ns;
    std::uint32_t rows, columns, age_ms;
    unsigned bits, photometric, state, reason, planes, flags;
    double rate_hz = 0.0;
    Plane live, synthetic, attention;
};

// Little-endian numbers out of bytes, whatever this machine is.
template <typename T>
T number(const std::uint8_t* data, std::size_t at) {
    T value = 0;
    for (std::size_t byte = 0; byte < sizeof(T); ++byte) value |= static_cast<T>(data[at + byte]) << (8 * byte);
    return value;
}

double real(const std::uint8_t* data, std::size_t at) {
    const auto bits = number<std::uint64_t>(data, at);
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

std::size_t next8(std::size_t at) { return (at + 7) / 8 * 8; }

Plane plane_of(const std::uint8_t* data, std::size_t size, int which, std::uint64_t expected, std::size_t header) {
    const Plane plane{number<std::uint64_t>(data, 128 + 16 * which), number<std::uint64_t>(data, 136 + 16 * which)};
    if (plane.length != expected || plane.offset % 64 != 0 || plane.offset < header || plane.offset > size ||
        plane.length > size - plane.offset)
        throw std::runtime_error("a plane does not fit its message");
    return plane;
}

Frame read(const std::uint8_t* data, std::size_t size) {
    if (size < kCore || std::memcmp(data, "CNTRSTRM", 8) != 0) throw std::runtime_error("no message of this format");
    if (number<std::uint16_t>(data, 8) != 1) throw std::runtime_error("another major version");
    const std::size_t core = number<std::uint16_t>(data, 12), header = number<std::uint16_t>(data, 14);
    if (core < kCore || header < core || header > size) throw std::runtime_error("header lengths do not fit");
    Frame frame{};
    frame.sequence = number<std::uint64_t>(data, 32);
    frame.publication = number<std::uint64_t>(data, 40);
    frame.due_ns = number<std::uint64_t>(data, 56);
    frame.published_ns = number<std::uint64_t>(data, 88);
    frame.rows = number<std::uint32_t>(data, 96);
    frame.columns = number<std::uint32_t>(data, 100);
    frame.bits = data[104];
    frame.photometric = data[105];
    frame.state = data[106];
    frame.reason = data[107];
    frame.planes = data[108];
    frame.flags = data[109];
    frame.age_ms = number<std::uint32_t>(data, 112);
    if (frame.rows == 0 || frame.rows > kMaxSide || frame.columns == 0 || frame.columns > kMaxSide || frame.bits < 8 ||
        frame.bits > 16 || frame.state < 1 || frame.state > 4 || !(frame.planes & 1))
        throw std::runtime_error("a value that is not allowed");
    std::size_t at = next8(core);
    for (unsigned left = number<std::uint16_t>(data, 110); left > 0; --left) {
        if (at + 8 > header) throw std::runtime_error("the header ends inside an extension");
        const unsigned type = number<std::uint16_t>(data, at);
        const std::size_t length = number<std::uint32_t>(data, at + 4);
        at += 8;
        if (length > header - at) throw std::runtime_error("the header ends inside an extension");
        if (type == 2 && length >= 8) frame.rate_hz = real(data, at);  // others are skipped
        at += next8(length);
    }
    const std::uint64_t pixels = std::uint64_t{frame.rows} * frame.columns;
    const std::uint64_t stored = pixels * (frame.bits == 8 ? 1 : 2);
    frame.live = plane_of(data, size, 0, stored, header);
    if (frame.planes & 2) frame.synthetic = plane_of(data, size, 1, stored, header);
    if (frame.planes & 4) frame.attention = plane_of(data, size, 2, pixels, header);
    return frame;
}

std::uint64_t sum(const std::uint8_t* data, const Plane& plane, unsigned bytes) {
    std::uint64_t total = 0;
    for (std::uint64_t at = 0; at < plane.length; at += bytes)
        total += bytes == 1 ? data[plane.offset + at] : number<std::uint16_t>(data, plane.offset + at);
    return total;
}

void print(const std::uint8_t* data, std::size_t size) {
    const Frame frame = read(data, size);
    const unsigned bytes = frame.bits == 8 ? 1 : 2;
    std::printf("%llu %llu %u %u %u %u %u %u %g", static_cast<unsigned long long>(frame.sequence),
                static_cast<unsigned long long>(frame.publication), frame.state, frame.reason, frame.rows, frame.columns,
                frame.bits, frame.photometric, frame.rate_hz);
    std::printf(" live=%llu", static_cast<unsigned long long>(sum(data, frame.live, bytes)));
    if (frame.planes & 2) std::printf(" synthetic=%llu", static_cast<unsigned long long>(sum(data, frame.synthetic, bytes)));
    if (frame.planes & 4) std::printf(" attention=%llu", static_cast<unsigned long long>(sum(data, frame.attention, 1)));
    std::printf("\n");
    std::fflush(stdout);
}

int from_file(const char* path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    print(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    return 0;
}

int from_stream(std::string address, int count) {
    const std::string ending = ".frames";  // of an ipc endpoint: its frames
    if (address.rfind("ipc://", 0) == 0 &&
        (address.size() < ending.size() || address.compare(address.size() - ending.size(), ending.size(), ending) != 0))
        address += ending;
    zmq::context_t context;
    zmq::socket_t socket(context, zmq::socket_type::sub);
    socket.set(zmq::sockopt::conflate, 1);  // the newest frame wins
    socket.set(zmq::sockopt::subscribe, "");
    socket.set(zmq::sockopt::rcvtimeo, 10000);
    socket.connect(address);
    for (int received = 0; received < count; ++received) {
        zmq::message_t message;
        if (!socket.recv(message)) throw std::runtime_error("needed a frame at " + address + ", got none for 10 s; is it running?");
        print(message.data<std::uint8_t>(), message.size());
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc == 3 && std::strcmp(argv[1], "--file") == 0) return from_file(argv[2]);
        if (argc == 3) return from_stream(argv[1], std::stoi(argv[2]));
        std::fprintf(stderr, "usage: client ADDRESS COUNT | client --file MESSAGE\n");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "client: %s\n", error.what());
    }
    return 2;
}
