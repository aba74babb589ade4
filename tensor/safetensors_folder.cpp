// Model folders: one safetensors file, or shards and the index that says which tensor lies where.
#include <algorithm>
#include <filesystem>

#include "tensor/json_reader.h"
#include "tensor/safetensors.h"

namespace cambium {

namespace {

constexpr int kIndexDepth = 64;
constexpr std::size_t kNamesShown = 10;

/// A list for a message: the first ten and how many more.
class NameList {
 public:
  void add(std::string_view name) {
    if (count_++ < kNamesShown) ((text_ += text_.empty() ? "" : ", ") += quote_for_message(name));
  }
  bool empty() const { return count_ == 0; }
  std::string text() const { return count_ > kNamesShown ? text_ + " and " + std::to_string(count_ - kNamesShown) + " more" : text_; }

 private:
  std::string text_;
  std::size_t count_ = 0;
};

bool is_plain_name(std::string_view name) {
  return name.size() <= 255 && name.ends_with(".safetensors") && name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

}  // namespace

const ShardedSafetensors::Place* ShardedSafetensors::find(std::string_view name) const {
  const auto at = std::lower_bound(places_.begin(), places_.end(), name, [](const Place& place, std::string_view wanted) { return place.name < wanted; });
  return at != places_.end() && at->name == name ? &*at : nullptr;
}

const SafetensorsFile& ShardedSafetensors::file_of(std::string_view name) const {
  const Place* place = find(name);
  check<NameError>(place != nullptr, files_.empty() ? "safetensors" : files_.front().path(), ": no tensor ", quote_for_message(name), " among the ",
                   places_.size(), " of the model");
  return files_[place->file];
}

std::vector<std::string> ShardedSafetensors::names() const {
  std::vector<std::string> names;
  names.reserve(places_.size());
  for (const Place& place : places_) names.push_back(place.name);
  return names;
}

void ShardedSafetensors::add_whole(SafetensorsFile file) {
  for (std::string& name : file.names()) places_.push_back({std::move(name), 0});
  files_.push_back(std::move(file));
}

void ShardedSafetensors::add_shards(const std::string& folder, const std::string& index, bool lenient_tail) {
  const auto file = MappedFile::open(index);
  const std::string_view text{reinterpret_cast<const char*>(file->data()), file->size()};
  places_.reserve(check_json(text, index, kIndexDepth).keys);
  JsonReader reader(text, index, kIndexDepth);
  reader.enter(JsonReader::Type::object);
  bool has_map = false;
  std::vector<std::string> shards;
  std::string key, shard;
  while (reader.next_key(&key)) {
    if (key != "weight_map") {
      reader.skip_value();
      continue;
    }
    has_map = true;
    reader.enter(JsonReader::Type::object);
    while (reader.next_key(&key)) {
      reader.read_string(shard);
      if (!is_plain_name(shard)) reader.fail_here("expected the plain name of a .safetensors file in the same folder, found " + quote_for_message(shard));
      auto known = std::find(shards.begin(), shards.end(), shard);
      if (known == shards.end()) {
        if (!std::filesystem::exists(folder + "/" + shard)) reader.fail_here("expected a file of the folder, found none named " + quote_for_message(shard));
        known = shards.insert(known, shard);
      }
      places_.push_back({key, static_cast<std::uint32_t>(known - shards.begin())});
    }
  }
  check<FileError>(has_map, index, ": expected a member \"weight_map\", found none");
  std::sort(places_.begin(), places_.end(), [](const Place& a, const Place& b) { return a.name < b.name; });

  for (const std::string& name : shards) files_.emplace_back(folder + "/" + name, lenient_tail);
  NameList missing, extra;
  for (const Place& place : places_) {
    if (!files_[place.file].contains(place.name)) missing.add(place.name);
  }
  for (std::uint32_t i = 0; i < files_.size(); ++i) {
    for (const SafetensorsInfo& info : files_[i].tensors()) {
      if (const Place* place = find(info.name); place == nullptr || place->file != i) extra.add(info.name);
    }
  }
  check<FileError>(missing.empty(), index, ": tensors that are not in the shard it names: ", missing.text());
  check<FileError>(extra.empty(), index, ": tensors in a shard where it names none: ", extra.text());
}

ShardedSafetensors open_safetensors_folder(const std::string& folder, bool lenient_tail) {
  namespace fs = std::filesystem;
  ShardedSafetensors model;
  std::error_code ignored;
  const auto there = [&](const std::string& name) { return fs::exists(folder + "/" + name, ignored); };
  if (there("model.safetensors")) {
    model.add_whole(SafetensorsFile(folder + "/model.safetensors", lenient_tail));
  } else if (there("model.safetensors.index.json")) {
    model.add_shards(folder, folder + "/model.safetensors.index.json", lenient_tail);
  } else if (there("pytorch_model.bin") || there("pytorch_model.bin.index.json")) {
    fail<FileError>(folder, ": expected model.safetensors, found only pytorch_model.bin: pickle files can run code and are not read; convert it in Python: ",
                    "m = AutoModel.from_pretrained(folder); m.save_pretrained(folder, safe_serialization=True)");
  } else {
    fail<FileError>(folder, ": expected model.safetensors or model.safetensors.index.json, found ", fs::is_directory(folder, ignored) ? "neither" : "no folder");
  }
  return model;
}

}  // namespace cambium
