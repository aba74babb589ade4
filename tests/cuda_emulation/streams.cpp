// Streams, events and copies. Work is queued and runs only when somebody waits for it, the newest stream first: what was not ordered shows.
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "internal.h"

struct CUstream_st {
  int device = 0;
  bool blocking = true;  // ordered with the default stream
  std::deque<std::function<void()>> queue;
  std::uint64_t queued = 0, done = 0;
  bool running = false;
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  std::uint64_t position = 0;
  bool timing = true;
  std::shared_ptr<std::chrono::steady_clock::time_point> time;  // of the last record
};

namespace kemu {

namespace {

std::recursive_mutex mutex;
thread_local int chosen_device = 0;

std::vector<std::unique_ptr<CUstream_st>>& default_streams() {
  static auto* streams = [] {
    auto* made = new std::vector<std::unique_ptr<CUstream_st>>;
    for (int i = 0; i < settings().devices; ++i) {
      made->push_back(std::make_unique<CUstream_st>());
      made->back()->device = i;
    }
    return made;
  }();
  return *streams;
}
std::vector<CUstream_st*>& made_streams() {  // in the order they were made
  static auto* streams = new std::vector<CUstream_st*>;
  return *streams;
}

bool is_default(cudaStream_t s) { return s == nullptr || s == cudaStreamLegacy || s == cudaStreamPerThread; }
CUstream_st* find_stream(cudaStream_t s) { return is_default(s) ? default_streams()[static_cast<std::size_t>(chosen_device)].get() : s; }
bool exists(cudaStream_t s) { return is_default(s) || std::find(made_streams().begin(), made_streams().end(), s) != made_streams().end(); }

void run_until(CUstream_st* s, std::uint64_t position) {
  if (s->running) return;
  s->running = true;
  while (s->done < position && !s->queue.empty()) {
    const auto work = std::move(s->queue.front());
    s->queue.pop_front();
    work();
    ++s->done;
  }
  s->running = false;
}
void run_all(CUstream_st* s) { run_until(s, ~std::uint64_t{0}); }

void drain(int device) {
  const auto& streams = made_streams();
  for (auto at = streams.rbegin(); at != streams.rend(); ++at)
    if ((*at)->device == device) run_all(*at);
  run_all(default_streams()[static_cast<std::size_t>(device)].get());
}

cudaError_t bad_stream(const char* call) { return set_error(cudaErrorInvalidResourceHandle, std::string(call) + ": the stream does not exist (any more)"); }

}  // namespace

Lock::Lock() { mutex.lock(); }
Lock::~Lock() { mutex.unlock(); }

int current_device() { return chosen_device; }
int device_of_stream(cudaStream_t stream) { return exists(stream) ? find_stream(stream)->device : -1; }

void enqueue(cudaStream_t stream, std::function<void()> work) {
  CUstream_st* s = find_stream(stream);
  CUstream_st* common = default_streams()[static_cast<std::size_t>(s->device)].get();
  if (s == common) {  // comes behind all that is in the device's blocking streams
    std::vector<std::pair<CUstream_st*, std::uint64_t>> before;
    for (CUstream_st* other : made_streams())
      if (other->device == s->device && other->blocking && other->done < other->queued) before.emplace_back(other, other->queued);
    if (!before.empty())
      work = [before, work = std::move(work)] {
        for (const auto& [other, position] : before)
          if (exists(other)) run_until(other, position);
        work();
      };
  } else if (s->blocking && common->done < common->queued) {
    work = [common, position = common->queued, work = std::move(work)] {
      run_until(common, position);
      work();
    };
  }
  s->queue.push_back(std::move(work));
  ++s->queued;
  if (!settings().lazy) run_all(s);
}

void drain_everything() {
  for (int i = static_cast<int>(default_streams().size()); i-- > 0;) drain(i);
}

namespace {

cudaError_t queue_copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream, const char* call) {
  if (!exists(stream)) return bad_stream(call);
  if (bytes == 0) return cudaSuccess;
  const int to_device = device_of(to, bytes), from_device = device_of(from, bytes);
  // A range that begins in device memory and ends outside is no host memory either.
  if ((to_device < 0 && device_of(to, 1) >= 0) || (from_device < 0 && device_of(from, 1) >= 0))
    return set_error(cudaErrorInvalidValue, std::string(call) + ": " + std::to_string(bytes) + " bytes reach past the end of the device allocation");
  if (kind != cudaMemcpyDefault) {
    const bool to_wanted = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, from_wanted = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if ((to_device >= 0) != to_wanted || (from_device >= 0) != from_wanted) return set_error(cudaErrorInvalidValue, std::string(call) + ": a pointer is not on the side that the direction says");
  }
  Counters& c = mutable_counters();
  const auto n = static_cast<std::int64_t>(bytes);
  if (to_device >= 0 && from_device >= 0) ++c.device_to_device, c.device_to_device_bytes += n;
  else if (to_device >= 0) ++c.host_to_device, c.host_to_device_bytes += n;
  else if (from_device >= 0) ++c.device_to_host, c.device_to_host_bytes += n;
  if (to_device >= 0 && from_device < 0 && !is_pinned(from)) {  // ordinary host memory is read before the call returns
    auto data = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    enqueue(stream, [=] {
      const DeviceVisible visible;
      std::memcpy(to, data->data(), bytes);
    });
    return cudaSuccess;
  }
  if (to_device < 0 && is_pinned(to) && settings().lazy) std::memset(to, kPoison, bytes);  // nobody may look before the stream has come here
  enqueue(stream, [=] {
    const DeviceVisible visible;
    if (to_device >= 0 && device_of(to, bytes) != to_device) return (void)set_error(cudaErrorIllegalAddress, std::string(call) + ": the destination was freed before the copy");
    if (from_device >= 0 && device_of(from, bytes) != from_device) return (void)set_error(cudaErrorIllegalAddress, std::string(call) + ": the source was freed before the copy");
    std::memmove(to, from, bytes);
  });
  if (to_device < 0 && !is_pinned(to)) run_all(find_stream(stream));  // ordinary host memory is written before the call returns
  return cudaSuccess;
}

cudaError_t queue_fill(void* p, int value, std::size_t bytes, cudaStream_t stream) {
  if (!exists(stream)) return bad_stream("cudaMemset");
  if (bytes == 0) return cudaSuccess;
  if (device_of(p, bytes) < 0) return set_error(cudaErrorInvalidValue, "cudaMemset: the range is not inside one device allocation");
  enqueue(stream, [=] {
    const DeviceVisible visible;
    if (device_of(p, bytes) < 0) return (void)set_error(cudaErrorIllegalAddress, "cudaMemset: the memory was freed before");
    std::memset(p, value, bytes);
  });
  return cudaSuccess;
}

}  // namespace

}  // namespace kemu

using namespace kemu;

extern "C" {

cudaError_t cudaGetDeviceCount(int* n) { return *n = settings().devices, *n > 0 ? cudaSuccess : cudaErrorNoDevice; }
cudaError_t cudaGetDevice(int* device) { return *device = chosen_device, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= settings().devices) return cudaErrorInvalidDevice;
  chosen_device = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  const Lock lock;
  drain(chosen_device);
  return pending_error();
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock;
  return queue_copy(to, from, bytes, kind, stream, "cudaMemcpyAsync");
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const Lock lock;
  const cudaError_t status = queue_copy(to, from, bytes, kind, nullptr, "cudaMemcpy");
  run_all(find_stream(nullptr));
  return status != cudaSuccess ? status : pending_error();
}
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, std::size_t bytes, cudaStream_t stream) {
  const Lock lock;
  if (bytes != 0 && (device_of(to, bytes) != to_device || device_of(from, bytes) != from_device))
    return set_error(cudaErrorInvalidValue, "cudaMemcpyPeerAsync: a range is not inside an allocation of the device that is named for it");
  return queue_copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream, "cudaMemcpyPeerAsync");
}
cudaError_t cudaMemcpyPeer(void* to, int to_device, const void* from, int from_device, std::size_t bytes) {
  const Lock lock;
  const cudaError_t status = cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes, nullptr);
  run_all(find_stream(nullptr));
  return status != cudaSuccess ? status : pending_error();
}
cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t stream) {
  const Lock lock;
  return queue_fill(p, value, bytes, stream);
}
cudaError_t cudaMemset(void* p, int value, std::size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  const Lock lock;
  if (!exists(stream)) return bad_stream("cudaLaunchHostFunc");
  enqueue(stream, [=] { function(data); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) {
  const Lock lock;
  *s = new CUstream_st;
  (*s)->device = chosen_device;
  (*s)->blocking = (flags & cudaStreamNonBlocking) == 0;
  made_streams().push_back(*s);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithFlags(s, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags, int) { return cudaStreamCreateWithFlags(s, flags); }
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  const Lock lock;
  if (is_default(s) || !exists(s)) return bad_stream("cudaStreamDestroy");
  run_all(s);
  std::erase(made_streams(), s);
  delete s;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  const Lock lock;
  if (!exists(s)) return bad_stream("cudaStreamSynchronize");
  run_all(find_stream(s));
  return pending_error();
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock;
  if (!exists(stream)) return bad_stream("cudaStreamQuery");
  CUstream_st* s = find_stream(stream);
  if (s->done == s->queued) return pending_error();
  run_until(s, s->done + 1);  // whoever asks again and again gets there
  return s->done == s->queued ? pending_error() : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  const Lock lock;
  if (!exists(s)) return bad_stream("cudaStreamWaitEvent");
  CUstream_st* recorded = e->stream;
  if (recorded != nullptr)
    enqueue(s, [recorded, position = e->position] {
      for (const auto& d : default_streams())
        if (d.get() == recorded) return run_until(recorded, position);
      if (exists(recorded)) run_until(recorded, position);
    });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) {
  *e = new CUevent_st;
  (*e)->timing = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  const Lock lock;
  if (!exists(s)) return bad_stream("cudaEventRecord");
  e->stream = find_stream(s);
  e->time = std::make_shared<std::chrono::steady_clock::time_point>();
  enqueue(s, [time = e->time] { *time = std::chrono::steady_clock::now(); });
  e->position = e->stream->queued;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  const Lock lock;
  if (e->stream != nullptr) run_until(e->stream, e->position);
  return pending_error();
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  const Lock lock;
  if (e->stream == nullptr || e->stream->done >= e->position) return pending_error();
  run_until(e->stream, e->stream->done + 1);
  return e->stream->done >= e->position ? pending_error() : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const Lock lock;
  if (!from->timing || !to->timing || from->time == nullptr || to->time == nullptr) return set_error(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime: an event was not recorded, or made without timing");
  if (from->stream->done < from->position || to->stream->done < to->position) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(*to->time - *from->time).count();
  return cudaSuccess;
}
}
