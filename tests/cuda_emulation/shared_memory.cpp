// Shared memory of a block: an arena in which every array has an address, gaps around it and poison in it; asynchronous copies into it.
// Built without sanitizers.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "block.h"

namespace kemu {

namespace {

// Under ThreadSanitizer each block has an arena of its own, or blocks would race in it. After the last one the kernel maps them anew, which makes
// ThreadSanitizer forget what was there.
constexpr std::size_t kArenas = KEMU_THREAD_SANITIZER ? 64 : 1;
char* arenas = nullptr;
std::size_t next_arena = 0;

void map_arenas() {
  void* memory = mmap(arenas, kArenas * kArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (arenas != nullptr ? MAP_FIXED : 0), -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("kemu: shared memory");
    std::abort();
  }
  arenas = static_cast<char*>(memory);
}

char* aligned(char* p, std::size_t alignment) { return reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(p) + alignment - 1) / alignment * alignment); }

void* add_array(const void* key, std::size_t size, std::size_t alignment, const char* name) {
  Block& b = block;
  if (b.n_arrays == kMostArrays) stop_with("more shared arrays than the emulator has room for");
  char* p = aligned(b.arena_top, std::max<std::size_t>(alignment, 16));
  b.arena_top = p + size + kGap;
  raw_fill(p - kGap / 2, kCanary, kGap / 2);
  raw_fill(p, kPoison, size);
  raw_fill(p + size, kCanary, kGap / 2);
  unpoison_memory(p, size);
  b.arrays[b.n_arrays++] = {key, p, size, name};
  return p;
}

bool is_canary(const char* p) {
  for (std::size_t i = 0; i < kGap / 2; ++i)
    if (static_cast<unsigned char>(p[i]) != kCanary) return false;
  return true;
}

}  // namespace

void begin_shared(std::size_t dynamic_bytes, bool new_grid) {
  Block& b = block;
  if (arenas == nullptr || next_arena == kArenas) {
    if (arenas == nullptr || KEMU_THREAD_SANITIZER) map_arenas();
    next_arena = 0;
  }
  (void)new_grid;
  b.arena = arenas + next_arena++ * kArena;
  poison_memory(b.arena, kArena);
  b.n_arrays = 0;
  b.static_bytes = 0;
  b.arena_top = b.arena + kSyncBytes + kGap;
  b.dynamic = nullptr;
  b.dynamic_bytes = dynamic_bytes;
  if (dynamic_bytes != 0) b.dynamic = static_cast<char*>(add_array(nullptr, dynamic_bytes, 16, "dynamic shared memory"));
}

void end_shared() {
  Block& b = block;
  for (int i = 0; i < b.n_arrays && !KEMU_ADDRESS_SANITIZER && !b.failed; ++i) {
    const SharedArray& a = b.arrays[i];
    if (is_canary(a.address - kGap / 2) && is_canary(a.address + a.size)) continue;
    b.failed = true;
    std::snprintf(b.error, sizeof b.error, "write outside shared array '%s' of %zu bytes", a.name, a.size);
  }
}

void forget_shared() { unpoison_memory(arenas, kArenas * kArena); }

void* shared_array(const void* key, std::size_t size, std::size_t alignment, const char* name) {
  Block& b = block;
  for (int i = 0; i < b.n_arrays; ++i)
    if (b.arrays[i].key == key) return b.arrays[i].address;
  b.static_bytes += (size + 15) / 16 * 16;
  if (b.static_bytes > 48 * 1024) fail_thread("KSHARED", 0, "more than 48 KiB of static shared memory (%s)", name);
  if (b.static_bytes + b.dynamic_bytes > most_shared_memory())
    fail_thread("KSHARED", 0, "%zu bytes of static and %zu of dynamic shared memory are more than a block has (%s)", b.static_bytes, b.dynamic_bytes, name);
  return add_array(key, size, alignment, name);
}

void* shared_dynamic() {
  if (block.dynamic == nullptr) fail_thread("KSHARED_DYN", 0, "dynamic shared memory is used, but the launch asked for none");
  return block.dynamic;
}

void check_shared(const void* p, std::size_t bytes, std::size_t alignment, const char* what, const char* file, int line) {
  const char* c = static_cast<const char*>(p);
  if (reinterpret_cast<std::uintptr_t>(p) % alignment != 0) fail_thread(file, line, "%s: the address in shared memory is not aligned to %zu bytes", what, alignment);
  for (int i = 0; i < block.n_arrays; ++i)
    if (c >= block.arrays[i].address && c + bytes <= block.arrays[i].address + block.arrays[i].size) return;
  fail_thread(file, line, "%s: the address is not inside a shared array", what);
}

void check_vector(const void* p, std::size_t alignment, const char* file, int line) {
  if (reinterpret_cast<std::uintptr_t>(p) % alignment != 0) fail_thread(file, line, "a vector access that is not aligned to %zu bytes", alignment);
}

void async_copy(void* to, const void* from, std::size_t bytes, std::size_t source_bytes, const char* file, int line) {
  Fiber* fiber = me();
  check_shared(to, bytes, bytes, "cp.async", file, line);
  if (bytes != 4 && bytes != 8 && bytes != 16) fail_thread(file, line, "cp.async of %zu bytes: 4, 8 or 16 are copied", bytes);
  if (source_bytes > bytes) fail_thread(file, line, "cp.async of %zu bytes reads %zu", bytes, source_bytes);
  if (source_bytes != 0 && reinterpret_cast<std::uintptr_t>(from) % bytes != 0) fail_thread(file, line, "cp.async: the source is not aligned to %zu bytes", bytes);
  if (fiber->n_copies == kMostCopies) fail_thread(file, line, "more cp.async copies under way than the emulator has room for");
  visible_fill(static_cast<char*>(to), kPoison, bytes);  // neither the old nor the new value may be relied on until the wait
  fiber->copies[fiber->n_copies++] = {static_cast<char*>(to), static_cast<const char*>(from), bytes, source_bytes, fiber->group};
}

void async_commit() { ++me()->group; }

void async_wait(int pending_groups) {
  Fiber* fiber = me();
  // Committed groups are …, group - 2, group - 1; all but the last `pending_groups` of them are finished now.
  int kept = 0;
  for (int i = 0; i < fiber->n_copies; ++i) {
    const AsyncCopy copy = fiber->copies[i];
    const unsigned age = fiber->group - copy.group;  // 0: not committed
    if (age != 0 && age > static_cast<unsigned>(pending_groups)) visible_copy(copy.to, copy.from, copy.bytes, copy.source_bytes);
    else fiber->copies[kept++] = copy;
  }
  fiber->n_copies = kept;
}

}  // namespace kemu
