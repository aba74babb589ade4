// Adapters against stored numbers: everything a case folder holds for its method.
#pragma once

#include "nn/module.h"
#include "tests/goldens/base_models.h"

namespace cambium {
class PeftModel;
}

namespace cambium::test {

/// Gradients at the stored values, the case's optimizer steps, the losses on the way and the parameters at the end, which have the names of the files.
void compare_training(const CaseFiles& files, const PeftModel& model, const std::vector<NamedParameter>& parameters, Comparison& out);

/// Base model and adapter of one case folder; what cannot be done is a failure.
Comparison compare_case(const std::string& folder, const std::string& name);

}  // namespace cambium::test
