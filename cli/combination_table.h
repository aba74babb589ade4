// The closing table of commands that make adapters: ranks, routes, energy kept, errors.
#pragma once

#include "peft/combine.h"
#include "tensor/json.h"

namespace cambium::cli {

void print_table(const CombinationReport& report, double seconds);
Json modules_json(const CombinationReport& report);

}  // namespace cambium::cli
