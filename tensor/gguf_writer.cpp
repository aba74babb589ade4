// GGUF writing: header, metadata, tensor table, padding, data; laid out as the reference package (gguf 0.19) does.
#include "tensor/gguf_writer.h"

#include <algorithm>

#include "kernels/cpu/dequantize.h"
#include "kernels/kernels.h"
#include "tensor/atomic_file.h"
#include "tensor/checked.h"
#include "tensor/gguf_format.h"
#include "tensor/json_reader.h"

namespace cambium {

namespace {

template <class T>
void put(std::string& out, T value) { out.append(reinterpret_cast<const char*>(&value), sizeof(T)); }
void put(std::string& out, GgufType type) { put(out, static_cast<std::uint32_t>(type)); }
void put_string(std::string& out, std::string_view text) {
  check<FileError>(text.size() <= gguf::kLongestString, "gguf: expected strings of at most ", gguf::kLongestString, " bytes, found ", text.size());
  put(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

template <class T> inline constexpr GgufType kTypeOf = GgufType::string;
template <> inline constexpr GgufType kTypeOf<bool> = GgufType::boolean;
template <> inline constexpr GgufType kTypeOf<std::uint8_t> = GgufType::u8;
template <> inline constexpr GgufType kTypeOf<std::int8_t> = GgufType::i8;
template <> inline constexpr GgufType kTypeOf<std::uint16_t> = GgufType::u16;
template <> inline constexpr GgufType kTypeOf<std::int16_t> = GgufType::i16;
template <> inline constexpr GgufType kTypeOf<std::uint32_t> = GgufType::u32;
template <> inline constexpr GgufType kTypeOf<std::int32_t> = GgufType::i32;
template <> inline constexpr GgufType kTypeOf<std::uint64_t> = GgufType::u64;
template <> inline constexpr GgufType kTypeOf<std::int64_t> = GgufType::i64;
template <> inline constexpr GgufType kTypeOf<float> = GgufType::f32;
template <> inline constexpr GgufType kTypeOf<double> = GgufType::f64;

void put_scalar(std::string& out, const std::string& value) { put_string(out, value); }
template <class T>
void put_scalar(std::string& out, const T& value) { put(out, value); }

struct Encoder {
  std::string& out;
  template <class T>
  void operator()(const T& value) const {
    put(out, kTypeOf<T>);
    put_scalar(out, value);
  }
  template <class T>
  void operator()(const std::vector<T>& values) const {
    put(out, GgufType::array);
    put(out, kTypeOf<T>);
    put(out, static_cast<std::uint64_t>(values.size()));
    for (const T& value : values) put_scalar(out, value);
  }
};

std::uint64_t bytes_of(const GgufWriter::Entry& entry, const std::string& path) {
  const GgmlFormat& format = ggml_format(entry.type);
  const bool known = entry.type == GgmlType::f32 || entry.type == GgmlType::f16 || entry.type == GgmlType::bf16 || entry.type == GgmlType::q8_0;
  const std::string quoted = quote_for_message(entry.name);
  check<DTypeError>(known, "write: ", path, ": tensor ", quoted, ": expected type F32, F16, BF16 or Q8_0, found ", entry.type);
  check<ShapeError>(entry.shape.rank() >= 1 && entry.shape.rank() <= 4 && entry.shape.count() > 0, "write: ", path, ": tensor ", quoted,
                    ": expected 1 to 4 dimensions without zeros, found ", entry.shape);
  check<ShapeError>(entry.shape[-1] % format.block_elements == 0, "write: ", path, ": tensor ", quoted, ": expected rows of a multiple of ",
                    format.block_elements, " elements for ", entry.type, ", found ", entry.shape);
  const auto bytes = checked_mul(static_cast<std::uint64_t>(entry.shape.count() / format.block_elements), static_cast<std::uint64_t>(format.block_bytes));
  check<ShapeError>(bytes && *bytes < std::uint64_t{1} << 61, "write: ", path, ": tensor ", quoted, ": too large for a file");
  return *bytes;
}

}  // namespace

std::string& GgufMetadata::slot(const std::string& key) {
  check<NameError>(!key.empty() && key.size() <= gguf::kLongestKey, "gguf: expected a key of 1 to ", gguf::kLongestKey, " bytes, found ", key.size());
  for (auto& [name, value] : entries_) {
    if (name == key) return value;
  }
  return entries_.emplace_back(key, "").second;
}

GgufMetadata& GgufMetadata::set(const std::string& key, const Value& value) {
  std::string bytes;
  std::visit(Encoder{bytes}, value);
  slot(key) = std::move(bytes);
  return *this;
}

GgufMetadata& GgufMetadata::copy(const GgufFile& file, const std::string& key) {
  const GgufValue value = file.value(key);
  std::string bytes;
  put(bytes, value.type());
  bytes.append(reinterpret_cast<const char*>(value.raw().data()), value.raw().size());
  slot(key) = std::move(bytes);
  return *this;
}

struct GgufWriter::State {
  explicit State(const std::string& path) : file(path) {}
  struct Slot {
    Entry entry;
    std::uint64_t begin = 0, bytes = 0;
    bool written = false;
  };
  AtomicFile file;
  std::vector<Slot> slots;
  std::vector<std::pair<std::string_view, std::size_t>> by_name;  // sorted
  std::uint64_t end = 0;
};

GgufWriter::GgufWriter(const std::string& path, const GgufMetadata& metadata, std::vector<Entry> entries) {
  std::uint64_t alignment = 32;
  std::string header = "GGUF";
  put(header, std::uint32_t{3});
  put(header, static_cast<std::uint64_t>(entries.size()));
  put(header, static_cast<std::uint64_t>(metadata.entries_.size()));
  for (const auto& [key, value] : metadata.entries_) {
    put_string(header, key);
    header += value;
    if (key != "general.alignment") continue;
    std::uint32_t wanted = 0;
    if (value.size() == 8 && value[0] == static_cast<char>(GgufType::u32)) std::memcpy(&wanted, value.data() + 4, 4);
    check<FileError>(wanted >= 8 && wanted <= 65536 && (wanted & (wanted - 1)) == 0, "write: ", path,
                     ": expected general.alignment as u32, a power of two from 8 to 65536");
    alignment = wanted;
  }
  const auto round_up = [&](std::uint64_t n) { return (n + alignment - 1) / alignment * alignment; };
  std::vector<std::uint64_t> begins, sizes;
  std::uint64_t end = 0;
  for (const Entry& entry : entries) {
    check<NameError>(!entry.name.empty() && entry.name.size() <= gguf::kLongestKey, "write: ", path, ": expected a name of 1 to ", gguf::kLongestKey,
                     " bytes, found ", entry.name.size());
    sizes.push_back(bytes_of(entry, path));
    begins.push_back(end);
    end = round_up(end + sizes.back());
    check<ShapeError>(end < std::uint64_t{1} << 61, "write: ", path, ": the tensors are too large for a file");
    put_string(header, entry.name);
    put(header, static_cast<std::uint32_t>(entry.shape.rank()));
    for (int d = entry.shape.rank() - 1; d >= 0; --d) put(header, static_cast<std::uint64_t>(entry.shape[d]));
    put(header, static_cast<std::uint32_t>(entry.type));
    put(header, begins.back());
  }
  header.resize(round_up(header.size()));

  state_ = std::make_unique<State>(path);
  for (std::size_t i = 0; i < entries.size(); ++i) state_->slots.push_back({std::move(entries[i]), header.size() + begins[i], sizes[i]});
  for (std::size_t i = 0; i < state_->slots.size(); ++i) state_->by_name.emplace_back(state_->slots[i].entry.name, i);
  std::sort(state_->by_name.begin(), state_->by_name.end());
  for (std::size_t i = 1; i < state_->by_name.size(); ++i) {
    check<NameError>(state_->by_name[i - 1].first != state_->by_name[i].first, "write: ", path, ": two tensors are called ",
                     quote_for_message(state_->by_name[i].first));
  }
  state_->end = header.size() + end;
  state_->file.append(header);
}

GgufWriter::~GgufWriter() = default;
GgufWriter::GgufWriter(GgufWriter&&) noexcept = default;

void GgufWriter::write(std::string_view name, const Tensor& tensor) {
  const std::string& path = state_->file.path();
  auto& by_name = state_->by_name;
  const auto at = std::lower_bound(by_name.begin(), by_name.end(), name, [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  const std::string quoted = quote_for_message(name);
  check<NameError>(at != by_name.end() && at->first == name, "write: ", path, ": no tensor ", quoted, " was declared");
  State::Slot& slot = state_->slots[at->second];
  check<StateError>(!slot.written, "write: ", path, ": tensor ", quoted, " was written before");
  check<StateError>(tensor.defined(), "write: ", path, ": tensor ", quoted, " is undefined");
  check<ShapeError>(tensor.shape() == slot.entry.shape, "write: ", path, ": tensor ", quoted, ": declared ", slot.entry.shape, ", found ", tensor.shape());
  check<DTypeError>(is_float(tensor.dtype()), "write: ", path, ": tensor ", quoted, ": expected floats, found ", tensor.dtype());
  const DType dtype = ggml_format(slot.entry.type).dtype.value_or(DType::f32);
  const Tensor host = detail::on_host(tensor);
  Tensor values = host;
  if (host.dtype() != dtype || !host.is_contiguous()) {
    values = empty(tensor.shape(), dtype);
    kernels::Context context;
    kernels::kernels_for(context.device).copy(context, values.view(), host.view());
  }
  if (slot.entry.type == GgmlType::q8_0) {
    std::vector<std::byte> blocks(slot.bytes);
    kernels::cpu::quantize_q8_0(values.data<float>(), values.count(), blocks.data());
    state_->file.write_at(slot.begin, blocks.data(), blocks.size());
  } else {
    state_->file.write_at(slot.begin, values.view().data, slot.bytes);
  }
  const std::uint64_t next = at->second + 1 < state_->slots.size() ? state_->slots[at->second + 1].begin : state_->end;
  const std::string padding(next - slot.begin - slot.bytes, '\0');
  state_->file.write_at(slot.begin + slot.bytes, padding.data(), padding.size());
  slot.written = true;
}

void GgufWriter::finish() {
  for (const State::Slot& slot : state_->slots) {
    check<StateError>(slot.written, "write: ", state_->file.path(), ": tensor ", quote_for_message(slot.entry.name), " was declared and not written");
  }
  state_->file.commit();
}

void save_gguf(const std::string& path, const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors) {
  std::vector<GgufWriter::Entry> entries;
  for (const GgufTensor& tensor : tensors) {
    check<StateError>(tensor.tensor.defined(), "write: ", path, ": tensor ", quote_for_message(tensor.name), " is undefined");
    entries.push_back({tensor.name, tensor.type, tensor.tensor.shape()});
  }
  GgufWriter writer(path, metadata, std::move(entries));
  for (const GgufTensor& tensor : tensors) writer.write(tensor.name, tensor.tensor);
  writer.finish();
}

}  // namespace cambium
