// The thread pool: each calling thread owns its workers, tasks are claimed by an atomic counter, waiting spins briefly and then blocks.
#include "kernels/parallel.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/error.h"

namespace cambium::kernels {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kSeat = 1 << 16;  // Pool::door_: workers inside in the low half, free seats in the high half

// A child made by fork() has none of its parent's workers: pools of an older generation are abandoned, never joined.
std::atomic<int> generation{0};
[[maybe_unused]] const int fork_handler =
    pthread_atfork(nullptr, nullptr, [] { generation.fetch_add(1, std::memory_order_relaxed); });

int default_threads() {
  static const int count = [] {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    const unsigned n = std::thread::hardware_concurrency();
    return n == 0 ? 1 : static_cast<int>(n);
  }();
  return count < kMaxThreads ? count : kMaxThreads;
}

/// Spins for a few microseconds, about the serial gap between two kernels, then sleeps until `value` differs from `old`. Longer spinning
/// would take the core from whoever else runs on it.
int wait_for_change(const std::atomic<int>& value, int old) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(8);
  do {
    for (int i = 0; i < 16; ++i) {
      const int now = value.load(std::memory_order_acquire);
      if (now != old) return now;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

/// Keeps the exception of the lowest task, so that the caller sees the same one for any number of threads.
struct FirstError {
  std::mutex mutex;
  std::exception_ptr error;
  std::int64_t task = 0;
  void keep(std::int64_t at) {
    const std::lock_guard lock(mutex);
    if (!error || at < task) error = std::current_exception(), task = at;
  }
};

thread_local bool inside = false;  // this thread runs a task: nested calls stay on it

struct Job {
  std::int64_t tasks = 0;
  void (*call)(void*, std::int64_t) = nullptr;
  void* body = nullptr;
  std::atomic<std::int64_t> next{0};
  FirstError first;

  void work() {
    inside = true;
    for (std::int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
      try {
        call(body, task);
      } catch (...) {
        first.keep(task);
      }
    }
    inside = false;
  }
};

class Pool {
 public:
  ~Pool() {
    stop_.store(true, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  bool belongs_here() const { return generation_ == generation.load(std::memory_order_relaxed); }

  void run(Job& job, int helpers) {
    grow(helpers);
    helpers = helpers < static_cast<int>(workers_.size()) ? helpers : static_cast<int>(workers_.size());
    job_ = &job;
    door_.store(helpers * kSeat, std::memory_order_release);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    job.work();
    // Whoever has not come in by now finds no seat: the caller never waits for a worker that the system did not get to run.
    int door = door_.fetch_and(kSeat - 1, std::memory_order_acq_rel) & (kSeat - 1);
    while (door != 0) door = wait_for_change(door_, door);
  }

 private:
  void grow(int helpers) {
    try {
      while (static_cast<int>(workers_.size()) < helpers) workers_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {  // no more threads to be had: fewer give the same result
    }
  }

  void serve() {
    int seen = 0;
    for (;;) {
      seen = wait_for_change(epoch_, seen);
      if (stop_.load(std::memory_order_relaxed)) return;
      int door = door_.load(std::memory_order_acquire);
      while (door >= kSeat && !door_.compare_exchange_weak(door, door - kSeat + 1, std::memory_order_acq_rel)) {}
      if (door < kSeat) continue;
      job_->work();
      door_.fetch_sub(1, std::memory_order_acq_rel);
      door_.notify_one();
    }
  }

  const int generation_ = generation.load(std::memory_order_relaxed);
  std::vector<std::thread> workers_;
  Job* job_ = nullptr;
  std::atomic<int> epoch_{0}, door_{0};
  std::atomic<bool> stop_{false};
};

/// The calling thread's pool, made when first needed; after the end of the thread's life (static destructors) there is none.
struct PoolOwner {
  Pool* pool = nullptr;
  bool gone = false;
  Pool* get() {
    if (gone) return nullptr;
    if (pool && !pool->belongs_here()) pool = nullptr;
    if (!pool) pool = new Pool;
    return pool;
  }
};
thread_local PoolOwner owner;
struct PoolEnd {
  bool armed = false;
  ~PoolEnd() {
    if (owner.pool && owner.pool->belongs_here()) delete owner.pool;
    owner.pool = nullptr;
    owner.gone = true;
  }
};
thread_local PoolEnd pool_end;

thread_local int chosen_threads = 0;  // 0: the default

}  // namespace

void set_threads(int count) {
  check<ConfigError>(count >= 0 && count <= kMaxThreads, "set_threads: expected 0 to ", kMaxThreads, " threads, found ", count);
  chosen_threads = count;
}

int threads() { return chosen_threads > 0 ? chosen_threads : default_threads(); }

void detail::run_tasks(std::int64_t tasks, void (*call)(void*, std::int64_t), void* body) {
  if (inside) {  // the outer call keeps the exception
    for (std::int64_t task = 0; task < tasks; ++task) call(body, task);
    return;
  }
  Job job;
  job.tasks = tasks;
  job.call = call;
  job.body = body;
  const std::int64_t helpers = (tasks < threads() ? tasks : threads()) - 1;
  Pool* pool = nullptr;
  if (helpers > 0) {
    pool_end.armed = true;  // touches the thread-local, so that its destructor runs
    pool = owner.get();
  }
  if (pool) pool->run(job, static_cast<int>(helpers));
  else job.work();
  if (job.first.error) std::rethrow_exception(job.first.error);
}

}  // namespace cambium::kernels
