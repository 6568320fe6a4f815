// Lines on standard error while data are opened.
#pragma once

namespace longstride::cli {

// From now on, opening data reports what takes long or looks wrong; with `quiet` there is no progress line.
void tell_about_data(bool quiet = false);

}  // namespace longstride::cli
