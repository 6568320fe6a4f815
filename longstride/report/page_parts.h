// The style and the script of the page, from page.css and page.js.
#pragma once

namespace longstride {

extern const char* const kPageStyle;
extern const char* const kPageScript;

}  // namespace longstride
