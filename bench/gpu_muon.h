// Muon's part of a step on the GPU, for the matrices of the paper's Enwik8 model.
#pragma once

#include <nlohmann/json.hpp>

namespace longstride {

// Prints and returns times of Newton-Schulz for the matrices of each shape, and of the update of all.
nlohmann::json time_muon();

}  // namespace longstride
