// The style of the page, from page.css, and its script, from place.js and page.js.
#pragma once

namespace longstride {

extern const char* const kPageStyle;
extern const char* const kPageScript;

}  // namespace longstride
