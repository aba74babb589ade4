// The module tree: registration, paths, replacing, ties, strict state dicts, patterns.
#include <doctest/doctest.h>

#include <cmath>

#include "nn/dropout.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "nn/lstm.h"
#include "nn/norm.h"
#include "nn/pattern.h"

using namespace cambium;

namespace {

class Block final : public Module {
 public:
  std::string_view type_name() const override { return "Block"; }
  Child<Layer> first{*this, "first", std::make_shared<Linear>(3, 4, RandomKey{1, 0})};
  Child<Layer> norm{*this, "norm", std::make_shared<LayerNorm>(4)};
};

class Root final : public Module {
 public:
  std::string_view type_name() const override { return "Root"; }
  Child<ModuleList<Block>> blocks{*this, "blocks", std::make_shared<ModuleList<Block>>()};
  Root() {
    blocks->append(std::make_shared<Block>());
    blocks->append(std::make_shared<Block>());
  }
};

}  // namespace

TEST_CASE("members register themselves and know their paths") {
  Root root;
  CHECK(root.named_parameters().size() == 8);
  CHECK(root.named_parameters().front().first == "blocks.0.first.weight");
  CHECK(root.parameter_count() == 2 * (12 + 4 + 4 + 4));
  CHECK(root.child("blocks.1.norm").module()->path() == "blocks.1.norm");
  CHECK_THROWS_WITH_AS(root.child("blocks.1.second"), doctest::Contains("first, norm"), NameError);
}

TEST_CASE("what is put into a slot is what forward calls, and its type is checked") {
  Root root;
  auto& slot = root.child("blocks.0.first");
  slot.replace(std::make_shared<Dropout>(0.5));
  CHECK((*root.blocks)[0].first->type_name() == "Dropout");
  CHECK_THROWS_WITH_AS(slot.replace(std::make_shared<Block>()), doctest::Contains("blocks.0.first"), NameError);
}

TEST_CASE("state dicts are strict and all or nothing") {
  Root root;
  std::vector<NamedTensor> state = root.state_dict();
  const double before = sum(state[0].second).item();
  state[0].second = zeros({4, 3});
  state.back().first = "blocks.1.norm.scale";
  CHECK_THROWS_WITH_AS(root.load_state_dict(state), doctest::Contains("missing blocks.1.norm.bias: unexpected blocks.1.norm.scale"), NameError);
  CHECK(sum(root.state_dict()[0].second).item() == before);
  state.back().first = "blocks.1.norm.bias";
  root.load_state_dict(state);
  CHECK(sum(root.state_dict()[0].second).item() == 0.0);
}

TEST_CASE("tied parameters are one") {
  Linear a(3, 4, RandomKey{1, 0}, false), b(3, 4, RandomKey{2, 0}, false);
  b.weight().tie(a.weight());
  a.weight().set(ones({4, 3}));
  CHECK(sum(b.weight().get()).item() == 12.0);
}

TEST_CASE("requires_grad by pattern over whole names") {
  Root root;
  root.set_requires_grad(false);
  CHECK(root.set_requires_grad(R"(.*\.norm\.(weight|bias))", true) == 4);
  CHECK_THROWS_AS(root.set_requires_grad("norm", true), NameError);
  CHECK(Pattern("a|ab").matches_whole("ab"));
  CHECK_FALSE(Pattern("b").matches_start("ab"));
  CHECK(Pattern("(?<=a)b").found_in("ab"));
  CHECK_THROWS_WITH_AS(Pattern("(a"), doctest::Contains("(a"), ConfigError);
}

TEST_CASE("layers: dropout by path, padding rows, loss without whole logits, LSTM in two directions") {
  ForwardContext training;
  training.training = true;
  training.key = RandomKey{3, 0};
  const Dropout dropout_layer(0.5);
  const Tensor x = ones({64, 64});
  CHECK(dropout_layer.forward(x, {}).same_body(x));
  CHECK(sum(dropout_layer.forward(x, training)).item() == doctest::Approx(4096).epsilon(0.1));

  Embedding table(5, 3, RandomKey{1, 0}, 2);
  backward(sum(table.forward(from_vector(std::vector<std::int64_t>{2, 4}, {2}), {})));
  CHECK(sum(table.weight.get().grad()).item() == 3.0);

  const Linear head(3, 7, RandomKey{4, 0});
  const Conv1D head_transposed(3, 7, RandomKey{4, 0});
  const Tensor hidden = random_normal({4, 3}, RandomKey{5, 0}), targets = from_vector(std::vector<std::int64_t>{1, 6, 0, 3}, {4});
  for (const Layer* layer : std::initializer_list<const Layer*>{&head, &head_transposed})
    CHECK(layer->forward_loss(hidden, targets, 4.0, {}).item() == doctest::Approx(layer->Layer::forward_loss(hidden, targets, 4.0, {}).item()).epsilon(1e-5));

  const Lstm both(3, 5, RandomKey{6, 0}, {.num_layers = 2, .bidirectional = true});
  CHECK(both.named_parameters()[4].first == "weight_ih_l0_reverse");
  const LstmResult result = both.forward(random_normal({2, 6, 3}, RandomKey{7, 0}), {});
  CHECK(result.output.shape() == Shape{2, 6, 10});
  CHECK(result.hidden.shape() == Shape{4, 2, 5});
  // The last layer's forward state is the output of the last step, its backward one that of the first.
  CHECK(max(abs(sub(slice(select(result.output, 1, 5), 1, 0, 5), select(result.hidden, 0, 2)))).item() == 0.0);
  CHECK(max(abs(sub(slice(select(result.output, 1, 0), 1, 5, 10), select(result.hidden, 0, 3)))).item() == 0.0);
}
