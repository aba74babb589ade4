// Making nodes, letting go of them, and checking what they kept.
#include "autograd/record.h"

#include <atomic>

#include "autograd/node_scope.h"

namespace cambium {

namespace {
thread_local bool recording = true;
std::atomic<std::uint64_t> next_sequence{1};
thread_local const Node* running = nullptr;
}  // namespace

bool grad_enabled() { return recording; }
NoGrad::NoGrad() : before_(recording) { recording = false; }
NoGrad::~NoGrad() { recording = before_; }
EnableGrad::EnableGrad() : before_(recording) { recording = true; }
EnableGrad::~EnableGrad() { recording = before_; }

detail::NodeScope::NodeScope(const Node& node) : before_(running) { running = &node; }
detail::NodeScope::~NodeScope() { running = before_; }

const Tensor& Saved::get() const {
  if (!tensor_.defined() || tensor_.storage()->version() == version_) return tensor_;
  if (running == nullptr) fail<StateError>("a tensor of shape ", tensor_.shape(), " kept for the backward pass was modified in place");
  for (const Node::Input& input : running->inputs)
    if (input.leaf.defined() ? input.leaf.same_body(tensor_) : input.node == tensor_.node())
      fail<StateError>(running->name, ": input ", input.position, " of shape ", tensor_.shape(), " was modified in place between forward and backward");
  fail<StateError>(running->name, ": a tensor of shape ", tensor_.shape(), " kept for the backward pass was modified in place");
}

void Node::free() noexcept {
  groups.clear();
  for (Input& input : inputs)
    if (input.node) detail::release(std::move(input.node));
  inputs.clear();
  output_storage.reset();
  freed = true;
}

Node::~Node() { free(); }

Tensor Node::output() const {
  check<StateError>(output_storage->version() == output_version, name, ": its result was modified in place between forward and backward");
  return Tensor(output_storage, output_layout, dtype);
}

void Record::add(std::span<const Tensor> xs, bool wants_output, Node::Function function) {
  if (!node_) {
    node_ = std::make_shared<Node>();
    node_->name = name_;
    node_->shape = out_.shape();
    node_->dtype = out_.dtype();
  }
  Node::Group group;
  group.first = node_->inputs.size();
  group.width = xs.size();
  for (std::size_t i = 0; i < group.width; ++i) {
    const Tensor& x = xs[i];
    if (!needs(x)) continue;
    Node::Input input{x.node(), x.is_leaf() ? x : Tensor(), x.shape(), x.dtype(), listed_ + i};
    node_->inputs.push_back(std::move(input));
    group.positions.push_back(i);
  }
  group.count = group.positions.size();
  group.wants_output = wants_output;
  group.function = std::move(function);
  if (wants_output && !node_->output_storage) {
    node_->output_storage = out_.storage();
    node_->output_layout = out_.layout();
    node_->output_version = out_.storage()->version();
  }
  node_->groups.push_back(std::move(group));
}

Tensor Record::finish() && {
  if (node_) {
    node_->sequence = next_sequence.fetch_add(1, std::memory_order_relaxed);
    out_.body_->node = std::move(node_);
    out_.body_->requires_grad = true;
  }
  return std::move(out_);
}

}  // namespace cambium
