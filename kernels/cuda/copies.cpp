// Copies: host memory goes through pinned blocks in turn, one being filled while another is on its way.
#include "kernels/cuda/copies.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {

namespace {

/// Pinned blocks of one size, taken in turn. A block is waited for, so there are enough small ones for the ids and masks of several steps.
class PinnedRing {
 public:
  struct Slot {
    void* memory = nullptr;
    cudaEvent_t free = nullptr;  // behind the copy that reads or writes it
  };
  PinnedRing(std::size_t slots, std::size_t bytes) : slots_(slots), bytes_(bytes) {}
  std::size_t bytes() const { return bytes_; }
  Slot& next() {
    Slot& slot = slots_[turn_++ % slots_.size()];
    if (slot.free == nullptr) {
      check_call(cudaMallocHost(&slot.memory, bytes_), "cudaMallocHost of ", bytes_, " bytes");
      check_call(cudaEventCreateWithFlags(&slot.free, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    } else {
      check_call(cudaEventSynchronize(slot.free), "cudaEventSynchronize: copy between cpu and cuda");
    }
    return slot;
  }

 private:
  std::vector<Slot> slots_;
  std::size_t bytes_, turn_ = 0;
};

/// The copies of one device from and to the host, one at a time.
class Staging {
 public:
  explicit Staging(Device device) : device_(device) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // On return the source has been read; the last blocks may still be on their way.
  void upload(void* destination, const std::byte* source, std::size_t bytes) {
    std::lock_guard lock(mutex_);
    const DeviceScope scope(device_);
    const cudaStream_t stream = stream_of(Context{device_});
    PinnedRing& pinned = ring(bytes);
    for (std::size_t done = 0; done < bytes;) {
      const PinnedRing::Slot& slot = pinned.next();
      const std::size_t part = std::min(pinned.bytes(), bytes - done);
      std::memcpy(slot.memory, source + done, part);
      check_call(cudaMemcpyAsync(static_cast<std::byte*>(destination) + done, slot.memory, part, cudaMemcpyHostToDevice, stream), "copy of ", part, " bytes from cpu to ", device_);
      check_call(cudaEventRecord(slot.free, stream), "cudaEventRecord on ", device_);
      done += part;
    }
  }

  void download(std::byte* destination, const void* source, std::size_t bytes) {
    std::lock_guard lock(mutex_);
    const DeviceScope scope(device_);
    const cudaStream_t stream = stream_of(Context{device_});
    PinnedRing& pinned = ring(bytes);
    struct Part { const PinnedRing::Slot* slot; std::size_t begin, bytes; };
    Part waiting{nullptr, 0, 0};
    const auto take = [&] {
      if (waiting.slot == nullptr) return;
      check_call(cudaEventSynchronize(waiting.slot->free), "copy from ", device_, " to cpu");
      std::memcpy(destination + waiting.begin, waiting.slot->memory, waiting.bytes);
    };
    for (std::size_t done = 0; done < bytes;) {
      const PinnedRing::Slot& slot = pinned.next();
      const std::size_t part = std::min(pinned.bytes(), bytes - done);
      check_call(cudaMemcpyAsync(slot.memory, static_cast<const std::byte*>(source) + done, part, cudaMemcpyDeviceToHost, stream), "copy of ", part, " bytes from ", device_, " to cpu");
      check_call(cudaEventRecord(slot.free, stream), "cudaEventRecord on ", device_);
      take();
      waiting = {&slot, done, part};
      done += part;
    }
    take();
  }

 private:
  PinnedRing& ring(std::size_t bytes) { return bytes <= small_.bytes() ? small_ : large_; }

  const Device device_;
  std::mutex mutex_;
  PinnedRing small_{64, std::size_t{64} << 10}, large_{2, std::size_t{4} << 20};
};

Staging& staging_of(Device device) {
  static auto* all = [] {  // never destroyed, as the allocators
    auto* made = new std::vector<std::unique_ptr<Staging>>;
    for (int i = 0; i < device_count(); ++i) made->push_back(std::make_unique<Staging>(Device{DeviceType::cuda, i}));
    return made;
  }();
  return *all->at(static_cast<std::size_t>(device.index));
}

// The source's stream has written what is read, and the destination's goes on behind it; the source's waits too, since its memory may be handed on.
void between(Device to, void* destination, Device from, const void* source, std::size_t bytes) {
  const cudaStream_t reader = stream_of(Context{to}), writer = stream_of(Context{from});
  struct Event {
    cudaEvent_t event = nullptr;
    Event(Device device, cudaStream_t stream) {
      const DeviceScope scope(device);
      check_call(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags on ", device);
      check_call(cudaEventRecord(event, stream), "cudaEventRecord on ", device);
    }
    ~Event() { cudaEventDestroy(event); }
  };
  const DeviceScope scope(to);
  const Event written(from, writer);
  check_call(cudaStreamWaitEvent(reader, written.event, 0), "cudaStreamWaitEvent on ", to);
  check_call(cudaMemcpyPeerAsync(destination, to.index, source, from.index, bytes, reader), "copy of ", bytes, " bytes from ", from, " to ", to);
  const Event read(to, reader);
  check_call(cudaStreamWaitEvent(writer, read.event, 0), "cudaStreamWaitEvent on ", from);
}

}  // namespace

void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes) {
  if (bytes == 0) return;
  if (from.type == DeviceType::cpu) return staging_of(to).upload(destination, static_cast<const std::byte*>(source), bytes);
  if (to.type == DeviceType::cpu) return staging_of(from).download(static_cast<std::byte*>(destination), source, bytes);
  if (to != from) return between(to, destination, from, source, bytes);
  const DeviceScope scope(to);
  check_call(cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToDevice, stream_of(Context{to})), "copy of ", bytes, " bytes on ", to);
}

void synchronize(Device device) {
  const DeviceScope scope(device);
  check_call(cudaStreamSynchronize(stream_of(Context{device})), "synchronize ", device);
}

}  // namespace cambium::kernels::cuda
