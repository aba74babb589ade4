#!/bin/sh
# include_source.sh KERNELS.cu OUTPUT.cpp: a C++ file that is the kernel file, so that messages keep its name and lines.
printf '#include "%s"\n' "$(realpath "$1")" > "$2"
