// Reading safetensors: eight bytes of header length, the header in JSON, the data.
#include "tensor/safetensors.h"

#include <algorithm>
#include <cstring>

#include "tensor/checked.h"
#include "tensor/json_reader.h"
#include "tensor/safetensors_types.h"

namespace cambium {

namespace {

constexpr int kMaxDepth = 64;
constexpr std::uint64_t kLongestHeader = 100'000'000;
constexpr std::uint64_t kPrefix = 8;

std::uint8_t type_from_name(JsonReader& reader, const std::string& name) {
  for (std::uint8_t i = 0; i < kSafetensorsTypes.size(); ++i) {
    if (kSafetensorsTypes[i].name == name) return i;
  }
  reader.fail_here("expected a dtype of the safetensors format, found " + quote_for_message(name));
}

std::uint64_t read_natural(JsonReader& reader, std::string_view what) {
  const std::size_t begin = (reader.peek(), reader.position());
  const auto number = reader.peek() == JsonReader::Type::number ? reader.read_number() : JsonReader::Number{JsonReader::Number::Kind::real};
  if (number.kind != JsonReader::Number::Kind::natural) reader.fail_at(begin, "expected " + std::string(what) + " as an integer from 0 to 2^64-1");
  return number.natural;
}

Shape read_shape(JsonReader& reader) {
  std::int64_t sizes[kMaxRank] = {};
  std::size_t rank = 0;
  const std::size_t begin = (reader.peek(), reader.position());
  reader.enter(JsonReader::Type::array);
  while (reader.next_element()) {
    if (rank == kMaxRank) reader.fail_here("expected at most " + std::to_string(kMaxRank) + " dimensions, found more");
    const std::uint64_t size = read_natural(reader, "a size");
    if (size > std::uint64_t{1} << 62) reader.fail_here("expected a shape of at most 2^62 elements");
    sizes[rank++] = static_cast<std::int64_t>(size);
  }
  const std::span<const std::int64_t> used(sizes, rank);
  if (!checked_count(used)) reader.fail_at(begin, "expected a shape of at most 2^62 elements");
  return Shape(used);
}

SafetensorsInfo read_info(JsonReader& reader, std::string name) {
  SafetensorsInfo info{.name = std::move(name)};
  bool has_type = false, has_shape = false, has_range = false;
  const std::size_t begin = (reader.peek(), reader.position());
  reader.enter(JsonReader::Type::object);
  std::string text;
  while (reader.next_key(&text)) {
    if (text == "dtype") {
      has_type = true;
      reader.read_string(text);
      info.type = type_from_name(reader, text);
    } else if (text == "shape") {
      has_shape = true;
      info.shape = read_shape(reader);
    } else if (text == "data_offsets") {
      has_range = true;
      std::uint64_t offsets[2] = {};
      std::size_t count = 0;
      const std::size_t at = (reader.peek(), reader.position());
      reader.enter(JsonReader::Type::array);
      while (reader.next_element()) {
        if (count == 2) reader.fail_here("expected two offsets, found more");
        offsets[count++] = read_natural(reader, "an offset");
      }
      if (count != 2) reader.fail_at(at, "expected two offsets, found " + std::to_string(count));
      if (offsets[0] > offsets[1]) reader.fail_at(at, "expected a range that does not end before it begins");
      info.begin = offsets[0];
      info.end = offsets[1];
    } else {
      reader.fail_here("expected dtype, shape and data_offsets, found " + quote_for_message(text));
    }
  }
  const auto need = [&](bool present, std::string_view key) {
    if (!present) reader.fail_at(begin, "expected a tensor with dtype, shape and data_offsets, found no " + std::string(key));
  };
  need(has_type, "dtype");
  need(has_shape, "shape");
  need(has_range, "data_offsets");
  const SafetensorsType& type = kSafetensorsTypes[info.type];
  const auto bits = checked_mul(*checked_count(info.shape), type.bits);
  if (!bits || *bits % 8 != 0 || *bits / 8 != info.end - info.begin) {
    reader.fail_at(begin, concat_text("expected a range of ", bits ? std::to_string(*bits / 8) + (*bits % 8 ? " and a part" : "") : "above 2^61",
                                      " bytes for ", type.name, " ", info.shape, ", found ", info.end - info.begin));
  }
  return info;
}

}  // namespace

std::string_view SafetensorsInfo::type_name() const { return kSafetensorsTypes[type].name; }
std::optional<DType> SafetensorsInfo::dtype() const { return kSafetensorsTypes[type].dtype; }

SafetensorsFile::SafetensorsFile(const std::string& path, bool lenient_tail) : path_(path) {
  auto file = MappedFile::open(path);
  bytes_ = {file->data(), file->size()};
  keeper_ = std::move(file);
  parse(lenient_tail);
}

SafetensorsFile::SafetensorsFile(std::shared_ptr<const void> keeper, std::span<const std::byte> bytes, const std::string& where, bool lenient_tail)
    : path_(where), keeper_(std::move(keeper)), bytes_(bytes) {
  parse(lenient_tail);
}

void SafetensorsFile::parse(bool lenient_tail) {
  check<FileError>(bytes_.size() >= kPrefix, path_, ": byte 0: expected a safetensors file of at least 8 bytes, found ", bytes_.size());
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kPrefix; ++i) length |= std::to_integer<std::uint64_t>(bytes_[i]) << (8 * i);
  check<FileError>(length <= kLongestHeader, path_, ": byte 0: expected a header of at most ", kLongestHeader, " bytes, found ", length,
                   ": is this a safetensors file?");
  check<FileError>(length <= bytes_.size() - kPrefix, path_, ": byte 0: expected a header of at most the ", bytes_.size() - kPrefix,
                   " bytes that follow, found ", length, ": the file is cut or no safetensors file");
  header_ = {reinterpret_cast<const char*>(bytes_.data()) + kPrefix, length};
  data_ = bytes_.subspan(kPrefix + length);
  check<FileError>(header_.starts_with('{'), path_, ": byte 8: expected '{', found ",
                   header_.empty() ? "an empty header" : quote_for_message(header_.substr(0, 1)));
  const std::size_t last = header_.find_last_not_of(' ');
  check<FileError>(header_[last] == '}', path_, ": byte ", kPrefix + last, ": expected '}' and spaces at the end of the header, found ",
                   quote_for_message(header_.substr(last, 1)));

  const JsonSummary summary = check_json(header_, path_, kMaxDepth, kPrefix);
  tensors_.reserve(summary.top_members);
  JsonReader reader(header_, path_, kMaxDepth, kPrefix);
  reader.enter(JsonReader::Type::object);
  std::string name;
  while (reader.next_key(&name)) {
    if (name != "__metadata__") {
      tensors_.push_back(read_info(reader, std::move(name)));
      continue;
    }
    metadata_begin_ = reader.position();
    reader.enter(JsonReader::Type::object);
    while (reader.next_key(nullptr)) {
      if (reader.peek() != JsonReader::Type::string) reader.fail_here("expected a string as value of the metadata");
      reader.skip_string();
    }
    metadata_end_ = reader.position();
  }
  check_ranges(kPrefix + length, lenient_tail);
  by_name_.resize(tensors_.size());
  for (std::uint32_t i = 0; i < by_name_.size(); ++i) by_name_[i] = i;
  std::sort(by_name_.begin(), by_name_.end(), [&](std::uint32_t a, std::uint32_t b) { return tensors_[a].name < tensors_[b].name; });
}

void SafetensorsFile::check_ranges(std::uint64_t data_begin, bool lenient_tail) {
  std::sort(tensors_.begin(), tensors_.end(), [](const SafetensorsInfo& a, const SafetensorsInfo& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end != b.end ? a.end < b.end : a.name < b.name;
  });
  std::uint64_t end = 0;
  for (const SafetensorsInfo& info : tensors_) {
    check<FileError>(info.end <= data_.size(), path_, ": byte ", bytes_.size(), ": expected the data of ", quote_for_message(info.name), " up to byte ",
                     info.end, " of the data, found only ", data_.size(), ": the file is cut");
    check<FileError>(info.begin == end, path_, ": byte ", data_begin + end, ": expected ", quote_for_message(info.name),
                     " to begin where the tensor before it ends, found ", info.begin < end ? "an overlap of " : "a gap of ",
                     info.begin < end ? end - info.begin : info.begin - end, " bytes");
    end = info.end;
  }
  check<FileError>(lenient_tail || end == data_.size(), path_, ": byte ", data_begin + end, ": expected the end of the file, found ", data_.size() - end,
                   " more bytes, as the reference library refuses: allow a lenient tail if you trust the file");
}

const SafetensorsInfo* SafetensorsFile::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](std::uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  return at != by_name_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

const SafetensorsInfo& SafetensorsFile::info(std::string_view name) const {
  const SafetensorsInfo* found = find(name);
  check<NameError>(found != nullptr, path_, ": no tensor ", quote_for_message(name), " among its ", tensors_.size());
  return *found;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  names.reserve(by_name_.size());
  for (const std::uint32_t i : by_name_) names.push_back(tensors_[i].name);
  return names;
}

std::map<std::string, std::string> SafetensorsFile::metadata() const {
  std::map<std::string, std::string> metadata;
  if (metadata_end_ == 0) return metadata;
  JsonReader reader(header_.substr(0, metadata_end_), path_, kMaxDepth, kPrefix);
  reader.set_position(metadata_begin_);
  reader.enter(JsonReader::Type::object);
  std::string key;
  while (reader.next_key(&key)) reader.read_string(metadata[key]);
  return metadata;
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsInfo& info = this->info(name);
  check<DTypeError>(info.dtype().has_value(), path_, ": tensor ", quote_for_message(name), ": elements of type ", info.type_name(),
                    " are not supported: use F64, F32, F16, BF16, I64, I32, I8, U8 or BOOL");
  const DType dtype = *info.dtype();
  const std::span<const std::byte> bytes = raw(info);
  if (dtype == DType::boolean) {  // any other value would be undefined behaviour in a C++ bool
    const auto odd = std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return std::to_integer<int>(b) > 1; });
    check<FileError>(odd == bytes.end(), path_, ": tensor ", quote_for_message(name), ": expected 0 or 1 for every BOOL, found ",
                     odd == bytes.end() ? 0 : std::to_integer<int>(*odd));
  }
  const Layout layout = Layout::contiguous(info.shape);
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  if (address % static_cast<std::uintptr_t>(item_size(dtype)) == 0) return Tensor(Storage::mapped(keeper_, bytes.data(), bytes.size()), layout, dtype);
  auto storage = Storage::allocate({}, bytes.size());
  if (!bytes.empty()) std::memcpy(storage->data(), bytes.data(), bytes.size());
  return Tensor(std::move(storage), layout, dtype);
}

}  // namespace cambium
