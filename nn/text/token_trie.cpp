// Built level by level from the sorted tokens: a node is a stretch of them that share a prefix.
#include "nn/text/token_trie.h"

#include <algorithm>

#include "kernels/error.h"
#include "tensor/json_reader.h"

namespace cambium::detail {

TokenTrie::TokenTrie(const Vocabulary& vocabulary, const std::string& where) {
  struct Item {
    std::string_view text;
    TokenId id;
  };
  std::vector<Item> items;
  items.reserve(vocabulary.size());
  for (std::int64_t id = 0; id < vocabulary.id_end(); ++id) {
    if (!vocabulary.contains(id)) continue;
    const std::string_view text = vocabulary.token(static_cast<TokenId>(id));
    if (text.size() > kLongest) fail<ConfigError>(where, ": token ", id, ": expected at most ", kLongest, " bytes, found ", text.size());
    if (!text.empty()) items.push_back({text, static_cast<TokenId>(id)});
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.text < b.text; });

  struct Stretch { std::uint32_t begin, end; };
  std::vector<Stretch> level{{0, static_cast<std::uint32_t>(items.size())}}, next;
  ids_.push_back(kNoToken);
  bytes_.push_back(0);
  for (std::size_t depth = 0; !level.empty(); ++depth, level.swap(next)) {
    next.clear();
    for (const Stretch stretch : level) {
      children_.push_back(static_cast<Node>(ids_.size()));
      std::uint32_t begin = stretch.begin;
      if (begin < stretch.end && items[begin].text.size() == depth) ++begin;  // the token that ends at this node
      while (begin < stretch.end) {
        const char byte = items[begin].text[depth];
        const auto past = std::partition_point(items.begin() + begin, items.begin() + stretch.end, [&](const Item& item) { return item.text[depth] == byte; });
        bytes_.push_back(static_cast<unsigned char>(byte));
        ids_.push_back(items[begin].text.size() == depth + 1 ? items[begin].id : kNoToken);
        next.push_back({begin, static_cast<std::uint32_t>(past - items.begin())});
        begin = next.back().end;
      }
    }
  }
  children_.push_back(static_cast<Node>(ids_.size()));
  first_.fill(kNone);
  for (Node child = children_[kRoot]; child < children_[kRoot + 1]; ++child) first_[bytes_[child]] = child;
}

TokenTrie::Node TokenTrie::step(Node node, char byte) const {
  const auto value = static_cast<unsigned char>(byte);
  if (node == kRoot) return first_[value];
  const auto begin = bytes_.begin() + children_[node], end = bytes_.begin() + children_[node + 1];
  const auto found = std::lower_bound(begin, end, value);
  return found != end && *found == value ? static_cast<Node>(found - bytes_.begin()) : kNone;
}

}  // namespace cambium::detail
