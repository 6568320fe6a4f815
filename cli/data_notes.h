// What people are told on standard error while data are opened.
#pragma once

namespace longstride::cli {

// From now on, whatever opens data says what takes long or looks wrong; `quiet` ends that.
void tell_about_data(bool quiet = false);

}  // namespace longstride::cli
