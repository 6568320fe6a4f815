// What people are told on standard error while data are opened.
#pragma once

namespace longstride::cli {

// From now on, whatever opens data says what takes long or looks wrong; with `quiet` without a progress line.
void tell_about_data(bool quiet = false);

}  // namespace longstride::cli
