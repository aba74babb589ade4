// Writing safetensors as the reference library does: larger types first, then by name; header padded with spaces.
#include <algorithm>
#include <cstring>

#include "tensor/atomic_file.h"
#include "tensor/checked.h"
#include "tensor/json_reader.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_types.h"

namespace cambium {

namespace {

void append_json_string(std::string& out, std::string_view text) {
  constexpr std::string_view kRaw = "\"\\\b\f\n\r\t", kNames = "\"\\bfnrt";
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (const std::size_t i = kRaw.find(c); i != std::string_view::npos) (out += '\\') += kNames[i];
    else if (byte < 0x20) ((out += "\\u00") += kHex[byte >> 4]) += kHex[byte & 15];
    else out += c;
  }
  out += '"';
}

void check_utf8(std::string_view text, std::string_view what, const std::string& path) {
  std::string quoted;
  append_json_string(quoted, text);
  try {
    JsonReader(quoted, path, 1).skip_string();
  } catch (const FileError&) {
    fail<NameError>("write: ", path, ": ", what, " ", quote_for_message(text), " is not valid UTF-8");
  }
}

/// Calls `sink(data, bytes)` with pieces that make up the elements in row-major order.
template <class Sink>
void for_each_piece(const Tensor& tensor, Sink&& sink) {
  const Tensor host = detail::on_host(tensor);
  const kernels::Strided view = host.view();
  const auto size = static_cast<std::size_t>(item_size(tensor.dtype()));
  const auto count = static_cast<std::size_t>(tensor.count());
  const auto* data = static_cast<const std::byte*>(view.data);
  if (view.contiguous()) {
    sink(data, count * size);
    return;
  }
  std::vector<std::byte> piece(std::min<std::size_t>(count * size, std::size_t{1} << 20));
  for (std::size_t done = 0; done < count;) {
    const std::size_t now = std::min(count - done, piece.size() / size);
    for (std::size_t i = 0; i < now; ++i) {
      const auto from = static_cast<std::ptrdiff_t>(kernels::offset_of(view, static_cast<std::int64_t>(done + i)));
      std::memcpy(piece.data() + i * size, data + from * static_cast<std::ptrdiff_t>(size), size);
    }
    sink(piece.data(), now * size);
    done += now;
  }
}

}  // namespace

struct SafetensorsWriter::State {
  explicit State(const std::string& path) : file(path) {}
  struct Slot {
    Entry entry;
    std::uint64_t begin = 0;
    bool written = false;
  };
  AtomicFile file;
  std::vector<Slot> slots;                          // in the order of the file
  std::vector<std::pair<std::string_view, std::size_t>> by_name;  // sorted
};

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<Entry> entries, const SafetensorsMetadata& metadata) {
  for (const Entry& entry : entries) {
    check<NameError>(entry.name != "__metadata__", "write: ", path, ": a tensor cannot be called \"__metadata__\"");
    check_utf8(entry.name, "the name", path);
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    const auto type_a = safetensors_type_of(a.dtype), type_b = safetensors_type_of(b.dtype);
    return type_a != type_b ? type_a > type_b : a.name < b.name;
  });
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      check_utf8(key, "the metadata key", path);
      check_utf8(value, "the metadata value", path);
      if (header.back() != '{') header += ',';
      append_json_string(header, key);
      header += ':';
      append_json_string(header, value);
    }
    header += '}';
  }
  std::vector<std::uint64_t> begins;
  std::uint64_t end = 0;
  for (const Entry& entry : entries) {
    const SafetensorsType& type = kSafetensorsTypes[safetensors_type_of(entry.dtype)];
    const std::uint64_t begin = end;
    const auto bytes = checked_mul(static_cast<std::uint64_t>(entry.shape.count()), type.bits / 8);
    const auto next = bytes ? checked_add(end, *bytes) : std::nullopt;
    check<ShapeError>(next && *next <= std::uint64_t{1} << 62, "write: ", path, ": the tensors are too large for a file");
    end = *next;
    begins.push_back(begin);
    if (header.size() > 1) header += ',';
    append_json_string(header, entry.name);
    ((header += ":{\"dtype\":\"") += type.name) += "\",\"shape\":[";
    for (const std::int64_t size : entry.shape) (header += header.back() == '[' ? "" : ",") += std::to_string(size);
    ((((header += "],\"data_offsets\":[") += std::to_string(begin)) += ',') += std::to_string(end)) += "]}";
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');

  // The check for equal names needs them sorted, which is also how write() finds them.
  state_ = std::make_unique<State>(path);
  for (std::size_t i = 0; i < entries.size(); ++i) state_->slots.push_back({std::move(entries[i]), begins[i] + 8 + header.size()});
  for (std::size_t i = 0; i < state_->slots.size(); ++i) state_->by_name.emplace_back(state_->slots[i].entry.name, i);
  std::sort(state_->by_name.begin(), state_->by_name.end());
  for (std::size_t i = 1; i < state_->by_name.size(); ++i) {
    check<NameError>(state_->by_name[i - 1].first != state_->by_name[i].first, "write: ", path, ": two tensors are called ",
                     quote_for_message(state_->by_name[i].first));
  }
  char length[8];
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>((header.size() >> (8 * i)) & 0xffU);
  state_->file.append(length, 8);
  state_->file.append(header);
}

SafetensorsWriter::~SafetensorsWriter() = default;
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;

void SafetensorsWriter::write(std::string_view name, const Tensor& tensor) {
  const std::string& path = state_->file.path();
  auto& by_name = state_->by_name;
  const auto at = std::lower_bound(by_name.begin(), by_name.end(), name, [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  check<NameError>(at != by_name.end() && at->first == name, "write: ", path, ": no tensor ", quote_for_message(name), " was declared");
  State::Slot& slot = state_->slots[at->second];
  check<StateError>(!slot.written, "write: ", path, ": tensor ", quote_for_message(name), " was written before");
  check<StateError>(tensor.defined(), "write: ", path, ": tensor ", quote_for_message(name), " is undefined");
  check<ShapeError>(tensor.shape() == slot.entry.shape, "write: ", path, ": tensor ", quote_for_message(name), ": declared ", slot.entry.shape,
                    ", found ", tensor.shape());
  check<DTypeError>(tensor.dtype() == slot.entry.dtype, "write: ", path, ": tensor ", quote_for_message(name), ": declared ", slot.entry.dtype,
                    ", found ", tensor.dtype());
  std::uint64_t offset = slot.begin;
  for_each_piece(tensor, [&](const std::byte* data, std::size_t bytes) {
    state_->file.write_at(offset, data, bytes);
    offset += bytes;
  });
  slot.written = true;
}

void SafetensorsWriter::finish() {
  for (const State::Slot& slot : state_->slots) {
    check<StateError>(slot.written, "write: ", state_->file.path(), ": tensor ", quote_for_message(slot.entry.name), " was declared and not written");
  }
  state_->file.commit();
}

void save_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors, const SafetensorsMetadata& metadata) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (const auto& [name, tensor] : tensors) {
    check<StateError>(tensor.defined(), "write: ", path, ": tensor ", quote_for_message(name), " is undefined");
    entries.push_back({name, tensor.dtype(), tensor.shape()});
  }
  SafetensorsWriter writer(path, std::move(entries), metadata);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
}

}  // namespace cambium
