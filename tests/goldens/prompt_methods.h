// Prompt methods against stored numbers.
#pragma once

#include <string>

#include "tests/goldens/base_models.h"

namespace cambium::test {

/// PROMPT_TUNING, PREFIX_TUNING or P_TUNING.
bool is_prompt_method(const std::string& peft_type);

/// Everything that a case folder of such a method holds besides the base model's own numbers.
void compare_prompt_method(const CaseFiles& files, Comparison& out);

}  // namespace cambium::test
