// Checks and defaults of a model's input that families share. Internal: not installed.
#pragma once

#include <initializer_list>
#include <string_view>
#include <utility>

#include "nn/models/model.h"

namespace cambium {

/// Rows and tokens of `ids` (B, T) or `embeds` (B, T, hidden), of which exactly one is given. ShapeError.
std::pair<std::int64_t, std::int64_t> token_sizes(std::string_view ids_name, const Tensor& ids, std::string_view embeds_name, const Tensor& embeds, std::int64_t hidden);
/// Integers and masks that lie on the host are copied to the model's device, once for the call. DeviceError naming a tensor that is somewhere else.
ModelInput on_device(ModelInput input, Device device);
/// ShapeError unless the tensor is absent or (B, T).
void check_shape(std::string_view name, const Tensor& tensor, const Shape& expected);
/// StateError naming the first of these members that is there though the model has no use for it.
void refuse_members(std::initializer_list<std::pair<const char*, bool>> members);
/// Bool of this shape, or undefined when there is no mask or every token is real.
Tensor key_mask_of(std::string_view name, const Tensor& mask, const Shape& expected);
/// The starts of packed sequences ascend from 0 to T in a batch of one row without a mask; the sequences' borders.
std::vector<std::int64_t> checked_starts(const ModelInput& input, std::int64_t batch, std::int64_t time);
/// int64 positions `first`, `first` + 1, …: (1, T), starting again at each of `starts` (may be empty).
Tensor positions_from(std::int64_t first, std::int64_t time, const std::vector<std::int64_t>& starts, Device device);
/// As many layers as the model has, each with keys and values of equal shapes (P, heads, head size) and one length.
void check_past(const Past& past, std::size_t layers);

}  // namespace cambium
