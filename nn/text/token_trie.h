// All tokens of a vocabulary as a trie of bytes, for models that ask which tokens start at a place. Internal.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "nn/text/vocabulary.h"

namespace cambium::detail {

/// Nodes in the order of their depth; the children of a node lie side by side, sorted by their byte.
class TokenTrie {
 public:
  using Node = std::uint32_t;
  static constexpr Node kNone = 0xFFFFFFFF;
  static constexpr Node kRoot = 0;
  static constexpr std::size_t kLongest = 1024;  ///< bytes of a token: what bounds a search, whatever a file says

  /// ConfigError starting with `where` if a token is longer than kLongest.
  TokenTrie(const Vocabulary& vocabulary, const std::string& where);

  /// The child of `node` by the next byte, or kNone.
  Node step(Node node, char byte) const;
  /// The token that ends at `node`, or kNoToken.
  TokenId token(Node node) const { return ids_[node]; }

 private:
  std::vector<TokenId> ids_;
  std::vector<Node> children_;  // [children_[n], children_[n + 1]): of node n
  std::vector<unsigned char> bytes_;
  std::array<Node, 256> first_{};  // of the root, which has most
};

}  // namespace cambium::detail
