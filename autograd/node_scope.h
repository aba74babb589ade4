// Which node's gradient is being computed on this thread, for messages. Internal.
#pragma once

namespace cambium {
class Node;
namespace detail {
class NodeScope {
 public:
  explicit NodeScope(const Node& node);
  ~NodeScope();
  NodeScope(const NodeScope&) = delete;
  NodeScope& operator=(const NodeScope&) = delete;

 private:
  const Node* before_;
};
}  // namespace detail
}  // namespace cambium
