// The backward pass: counts uses, runs nodes newest first when all their gradients have arrived, never recurses.
#include "autograd/engine.h"

#include <algorithm>
#include <optional>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "autograd/node_scope.h"
#include "autograd/ops.h"
#include "autograd/record.h"
#include "kernels/kernels.h"

namespace cambium {

class Engine {
 public:
  /// When collecting, only what leads to `targets` is computed, and their gradients are kept here instead of stored in leaves.
  Engine(const BackwardOptions& options, std::span<const Tensor> targets, bool collect) : options_(options), collect_(collect) {
    for (const Tensor& t : targets) {
      if (t.is_leaf()) leaf_targets_.insert(t.id());
      else node_targets_.insert(t.node().get());
    }
  }

  /// Adds the gradient of one output before run().
  void seed(const Tensor& output, const Tensor& g) {
    check<StateError>(needs_anything(output), "backward: the output of shape ", output.shape(), " does not depend on anything that requires a gradient");
    Tensor start = g;
    if (!g.defined()) {
      check<ShapeError>(output.count() == 1, "backward: the output of shape ", output.shape(), " is no scalar: pass its gradient");
      start = ones(output.shape(), output.dtype(), output.device());
    }
    check<ShapeError>(start.shape() == output.shape(), "backward: a gradient of shape ", start.shape(), " for an output of shape ", output.shape());
    check<DTypeError>(start.dtype() == output.dtype(), "backward: a gradient of ", start.dtype(), " for an output of ", output.dtype());
    if (output.is_leaf()) add_to_leaf(output, start);
    else {
      accumulate(gradients_[output.node().get()], start);
      roots_.push_back(output.node());
    }
  }

  void run() {
    count_uses();
    std::optional<NoGrad> no_grad;
    if (!options_.create_graph) no_grad.emplace();
    std::priority_queue<std::pair<std::uint64_t, Node*>> ready;
    std::unordered_map<Node*, std::shared_ptr<Node>> alive;
    for (const auto& root : roots_)
      if (uses_[root.get()] == 0 && alive.emplace(root.get(), root).second) ready.emplace(root->sequence, root.get());
    while (!ready.empty()) {
      Node* node = ready.top().second;
      ready.pop();
      std::shared_ptr<Node> hold = std::move(alive[node]);
      alive.erase(node);
      auto found = gradients_.find(node);
      Tensor g = found == gradients_.end() ? Tensor() : found->second;
      const bool is_target = node_targets_.contains(node);
      if (found != gradients_.end() && !is_target) gradients_.erase(found);
      if (wanted(node)) {
        for (const Node::Input& input : node->inputs)
          if (input.node && wanted(input.node.get()) && --uses_[input.node.get()] == 0) {
            alive.emplace(input.node.get(), input.node);
            ready.emplace(input.node->sequence, input.node.get());
          }
        if (g.defined()) propagate(hold, g);
        // A target that leads to no other one was not run: its own graph stays.
        if (!options_.retain_graph && !options_.create_graph && runs(*node)) node->free();
      }
    }
  }

  Tensor collected(const Tensor& target) const {
    if (target.is_leaf()) {
      auto found = leaf_gradients_.find(target.id());
      return found == leaf_gradients_.end() ? Tensor() : found->second;
    }
    auto found = gradients_.find(target.node().get());
    return found == gradients_.end() ? Tensor() : found->second;
  }

 private:
  static bool needs_anything(const Tensor& t) { return t.defined() && (t.requires_grad() || !t.is_leaf()); }
  bool runs(const Node& node) const {
    for (const Node::Input& input : node.inputs)
      if (input.node ? wanted(input.node.get()) : leaf_wanted(input.leaf)) return true;
    return false;
  }
  bool wanted(const Node* node) const { return !collect_ || leads_.contains(node); }
  bool leaf_wanted(const Tensor& leaf) const { return !collect_ || leaf_targets_.contains(leaf.id()); }

  // One depth-first walk: how often each node is used within this graph and, when collecting, which nodes lead to a target.
  void count_uses() {
    struct Frame { Node* node; std::size_t next; };
    std::unordered_set<Node*> seen;
    std::vector<Node*> order;  // children before parents
    for (const auto& root : roots_) {
      std::vector<Frame> stack;
      if (seen.insert(root.get()).second) stack.push_back({root.get(), 0});
      while (!stack.empty()) {
        Frame& frame = stack.back();
        check<StateError>(!frame.node->freed || node_targets_.contains(frame.node), "backward: the graph of '", frame.node->name,
                          "' was freed by an earlier backward pass: pass retain_graph to use it again");
        if (frame.next == frame.node->inputs.size()) {
          order.push_back(frame.node);
          stack.pop_back();
          continue;
        }
        Node* child = frame.node->inputs[frame.next++].node.get();
        if (child != nullptr && seen.insert(child).second) stack.push_back({child, 0});
      }
    }
    if (collect_)
      for (Node* node : order)
        for (const Node::Input& input : node->inputs)
          if (input.node ? leads_.contains(input.node.get()) || node_targets_.contains(input.node.get()) : leaf_targets_.contains(input.leaf.id())) {
            leads_.insert(node);
            break;
          }
    if (collect_) for (Node* node : node_targets_) if (seen.contains(node)) leads_.insert(node);
    for (Node* node : order)
      if (wanted(node))
        for (const Node::Input& input : node->inputs)
          if (input.node && wanted(input.node.get())) ++uses_[input.node.get()];
  }

  void propagate(const std::shared_ptr<Node>& shared, const Tensor& g) {
    Node& node = *shared;
    detail::NodeScope scope(node);
    for (Node::Group& group : node.groups) {
      std::vector<bool> asked(group.width, false);
      bool any = false;
      for (std::size_t i = 0; i < group.count; ++i) {
        const Node::Input& input = node.inputs[group.first + i];
        if (!(input.node ? wanted(input.node.get()) : leaf_wanted(input.leaf))) continue;
        asked[group.positions[i]] = any = true;
      }
      if (!any) continue;
      Tensor output;
      if (group.wants_output) {
        output = node.output();
        if (options_.create_graph) {  // gets its node back, so that a derivative through it is recorded
          output.body_->node = shared;
          output.body_->requires_grad = true;
        }
      }
      std::vector<Tensor> results(group.width);
      group.function(g, output, Needed(asked), results);
      for (std::size_t i = 0; i < group.count; ++i) {
        const std::size_t position = group.positions[i];
        Tensor& result = results[position];
        const Node::Input& input = node.inputs[group.first + i];
        if (!asked[position] || !result.defined()) continue;
        check<ShapeError>(result.shape() == input.shape, node.name, ": the gradient of input ", input.position, " has shape ", result.shape(), ", expected ", input.shape);
        check<DTypeError>(result.dtype() == input.dtype, node.name, ": the gradient of input ", input.position, " is ", result.dtype(), ", expected ", input.dtype);
        if (input.node) {
          Tensor& sum = gradients_[input.node.get()];
          accumulate(sum, std::move(result));
        } else {
          add_to_leaf(input.leaf, std::move(result));
        }
      }
    }
  }

  // Adds in place only into memory that nothing else can see: an identity gradient hands the same tensor out twice.
  void accumulate(Tensor& sum, Tensor part) {
    if (!sum.defined()) {
      sum = std::move(part);
      return;
    }
    const bool alone = sum.body_.use_count() == 1 && sum.storage().use_count() == 1 && sum.is_contiguous() && sum.storage()->kind() == Storage::Kind::owned;
    if (!options_.create_graph && alone) {
      kernels::Context context{sum.device()};
      kernels::Strided into = sum.mutable_view();
      kernels::kernels_for(sum.device()).binary(context, kernels::BinaryFunction::add, into, into, part.view());
    } else {
      sum = add(sum, part);
    }
  }

  void add_to_leaf(const Tensor& leaf, Tensor g) {
    if (collect_) {
      if (leaf_wanted(leaf)) accumulate(leaf_gradients_[leaf.id()], std::move(g));
      return;
    }
    if (!leaf.requires_grad()) return;
    Tensor sum(std::move(leaf.body_->grad));
    if (!sum.body_) {
      // Kept for as long as the leaf lives: it must own its memory alone.
      const bool alone = g.body_.use_count() == 1 && g.storage().use_count() == 1 && g.is_contiguous();
      sum = alone || options_.create_graph ? std::move(g) : clone(g);
    } else {
      accumulate(sum, std::move(g));
    }
    leaf.body_->grad = std::move(sum.body_);
  }

  BackwardOptions options_;
  bool collect_;
  std::vector<std::shared_ptr<Node>> roots_;
  std::unordered_map<const Node*, int> uses_;
  std::unordered_map<const Node*, Tensor> gradients_;
  std::unordered_map<const void*, Tensor> leaf_gradients_;
  std::unordered_set<const void*> leaf_targets_;
  std::unordered_set<Node*> node_targets_;
  std::unordered_set<const Node*> leads_;
};

std::vector<Tensor> grad(std::span<const Tensor> outputs, std::span<const Tensor> inputs, std::span<const Tensor> grad_outputs, const BackwardOptions& options) {
  check<ShapeError>(grad_outputs.empty() || grad_outputs.size() == outputs.size(), "grad: ", grad_outputs.size(), " gradients for ", outputs.size(), " outputs");
  for (const Tensor& input : inputs)
    check<StateError>(input.defined() && (input.requires_grad() || !input.is_leaf()), "grad: an input does not require a gradient");
  Engine engine(options, inputs, true);
  for (std::size_t i = 0; i < outputs.size(); ++i) engine.seed(outputs[i], grad_outputs.empty() ? Tensor() : grad_outputs[i]);
  engine.run();
  std::vector<Tensor> result;
  for (const Tensor& input : inputs) result.push_back(engine.collected(input));
  return result;
}

Tensor grad(const Tensor& output, const Tensor& input, const BackwardOptions& options) {
  return grad(std::span(&output, 1), std::span(&input, 1), {}, options).front();
}

void backward(const Tensor& output, const Tensor& grad_output, const BackwardOptions& options) {
  Engine engine(options, {}, false);
  engine.seed(output, grad_output);
  engine.run();
}

Tensor checkpoint(const std::function<Tensor(std::span<const Tensor>)>& function, std::span<const Tensor> inputs, std::span<const Tensor> parameters) {
  Tensor out;
  {
    NoGrad no_grad;
    Tensor result = function(inputs);
    check<StateError>(result.defined(), "checkpoint: the function returned an undefined tensor");
    // The function may hand back something that others hold too; the record needs a result of its own.
    out = Tensor(result.storage(), result.layout(), result.dtype());
    result = Tensor();
    if (out.storage().use_count() > 1) out = clone(out);
  }
  std::vector<Tensor> all(inputs.begin(), inputs.end());
  all.insert(all.end(), parameters.begin(), parameters.end());
  std::vector<Saved> kept;  // parameters too: an optimizer's step in between must not go unnoticed
  for (const Tensor& x : all) kept.push_back(saved(x));
  return record("checkpoint", out).wrt(all, [function, kept, input_count = inputs.size()](const Tensor& g, Needed needed) {
    const bool create_graph = grad_enabled();
    EnableGrad again;
    std::vector<Tensor> fresh, asked;
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      Tensor x = kept[i].get();
      if (i < input_count) {
        // What happened before the inputs takes part only when this pass is recorded itself, and even then not in these gradients:
        // one input may have been made from another.
        Tensor same(x.storage(), x.layout(), x.dtype());
        if (create_graph) same = record("checkpoint_input", std::move(same)).wrt(x, [](const Tensor& gx) { return gx; });
        else if (needed[i]) same.set_requires_grad(true);
        x = same;
        fresh.push_back(x);
      }
      if (needed[i]) {
        asked.push_back(x);
        places.push_back(i);
      }
    }
    std::vector<Tensor> results(kept.size());
    const Tensor again_out = function(fresh);
    if (!needs_grad(again_out)) return results;
    std::vector<Tensor> grads = grad(std::span(&again_out, 1), asked, std::span(&g, 1), {.create_graph = create_graph});
    for (std::size_t i = 0; i < places.size(); ++i) results[places[i]] = grads[i];
    return results;
  });
}

}  // namespace cambium
