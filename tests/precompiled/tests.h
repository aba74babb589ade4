// What test files include, read once for all of them.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "cambium.h"
