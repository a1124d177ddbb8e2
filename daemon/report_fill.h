/* report_fill.h - the words and numbers of one finding, from the table as it stands. Reads only. */
#pragma once

#include "report.h"
