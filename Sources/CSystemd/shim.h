#ifndef HENGE_CSYSTEMD_H
#define HENGE_CSYSTEMD_H

// The location macros would name a Swift file's C caller, which does not exist.
#define SD_JOURNAL_SUPPRESS_LOCATION 1

#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

#endif
