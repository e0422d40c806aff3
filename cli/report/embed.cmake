# Writes OUT, the C++ source of page_text.h: PAGE with CHART (Chart.js, minified) in the place of /*CHART*/, cut at /*DATA*/.
cmake_minimum_required(VERSION 3.28)
foreach(name PAGE CHART)
  file(READ ${${name}} ${name}_TEXT)
  string(LENGTH "${${name}_TEXT}" length)
  if(length EQUAL 0)
    message(FATAL_ERROR "${${name}} is empty")
  endif()
endforeach()
# Either would end the element, or the literal, that holds the script.
foreach(end "</script" ")octet\"")
  string(FIND "${CHART_TEXT}" "${end}" at)
  if(NOT at EQUAL -1)
    message(FATAL_ERROR "${CHART} holds ${end}")
  endif()
endforeach()

# cut(text mark before after): the text on both sides of the mark.
function(cut text mark before after)
  string(FIND "${text}" "${mark}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "${PAGE} has no ${mark}")
  endif()
  string(LENGTH "${mark}" length)
  string(SUBSTRING "${text}" 0 ${at} head)
  math(EXPR at "${at} + ${length}")
  string(SUBSTRING "${text}" ${at} -1 tail)
  set(${before} "${head}" PARENT_SCOPE)
  set(${after} "${tail}" PARENT_SCOPE)
endfunction()

cut("${PAGE_TEXT}" "/*CHART*/" head rest)
cut("${rest}" "/*DATA*/" middle tail)
file(WRITE ${OUT} "// Written by embed.cmake.
#include \"cli/report/page_text.h\"

namespace octet::cli {

const std::string_view kPageBeforeData = R\"octet(${head}${CHART_TEXT}${middle})octet\";
const std::string_view kPageAfterData = R\"octet(${tail})octet\";

}  // namespace octet::cli
")
