// The thread pool: every task once, nesting, exceptions, several callers, fork.
#include "kernels/parallel.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/error.h"

using namespace cambium;
using namespace cambium::kernels;

namespace {
std::int64_t sum_of_tasks(std::int64_t tasks) {
  std::vector<std::int64_t> seen(static_cast<std::size_t>(tasks), 0);
  parallel_for(tasks, [&](std::int64_t i) { seen[static_cast<std::size_t>(i)] += i + 1; });
  return std::accumulate(seen.begin(), seen.end(), std::int64_t{0});
}
struct Threads {
  explicit Threads(int n) { set_threads(n); }
  ~Threads() { set_threads(0); }
};
}  // namespace

TEST_CASE("every task runs once for any number of threads") {
  for (int count : {1, 2, 3, 4, 7}) {
    const Threads guard(count);
    CHECK(threads() == count);
    for (std::int64_t n : {0, 1, 2, 3, 17, 1000}) CHECK(sum_of_tasks(n) == n * (n + 1) / 2);
    for (int i = 0; i < 300; ++i) REQUIRE(sum_of_tasks(5) == 15);  // back to back, with workers that come late
  }
}

TEST_CASE("set_threads: 0 is the default, bad counts are errors") {
  set_threads(3);
  set_threads(0);
  CHECK(threads() >= 1);
  CHECK_THROWS_AS(set_threads(-1), ConfigError);
  CHECK_THROWS_AS(set_threads(100000), ConfigError);
  CHECK(threads() >= 1);
}

TEST_CASE("the count belongs to the calling thread") {
  const Threads guard(3);
  int other = 0;
  std::thread([&] { set_threads(2); other = threads(); }).join();
  CHECK(other == 2);
  CHECK(threads() == 3);
}

TEST_CASE("parallel_ranges covers the range with the last piece short") {
  const Threads guard(3);
  std::vector<int> hits(23, 0);
  parallel_ranges(23, 5, [&](std::int64_t begin, std::int64_t end) {
    CHECK(begin % 5 == 0);
    for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
  });
  for (int h : hits) CHECK(h == 1);
}

TEST_CASE("a nested call stays on its thread") {
  const Threads guard(4);
  std::atomic<int> wrong{0}, total{0};
  parallel_for(8, [&](std::int64_t) {
    const auto me = std::this_thread::get_id();
    parallel_for(8, [&](std::int64_t) {
      ++total;
      if (std::this_thread::get_id() != me) ++wrong;
    });
  });
  CHECK(total == 64);
  CHECK(wrong == 0);
}

TEST_CASE("the lowest task's exception reaches the caller, after all tasks have run") {
  for (int count : {1, 4}) {
    const Threads guard(count);
    std::atomic<int> ran{0};
    std::string message;
    try {
      parallel_for(50, [&](std::int64_t i) {
        ++ran;
        if (i % 7 == 3) throw std::runtime_error("task " + std::to_string(i));
      });
    } catch (const std::runtime_error& e) {
      message = e.what();
    }
    CHECK(message == "task 3");
    CHECK(ran == 50);
    CHECK(sum_of_tasks(10) == 55);
  }
}

TEST_CASE("several host threads call at once") {
  std::atomic<int> good{0};
  std::vector<std::thread> hosts;
  for (int h = 0; h < 4; ++h)
    hosts.emplace_back([&] {
      set_threads(3);
      for (int i = 0; i < 100; ++i)
        if (sum_of_tasks(20) == 210) ++good;
    });
  for (std::thread& t : hosts) t.join();
  CHECK(good == 400);
}

#if !defined(CAMBIUM_THREAD_SANITIZER)  // it does not support threads after fork
TEST_CASE("a forked child makes its own workers and ends") {
  const Threads guard(3);
  CHECK(sum_of_tasks(20) == 210);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const bool good = sum_of_tasks(20) == 210;
    _exit(good ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(sum_of_tasks(20) == 210);
}
#endif
