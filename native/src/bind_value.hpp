// Fields of the dicts in which Python describes models, programs and spotters.
#pragma once
#include <nanobind/nanobind.h>

#include <string>

// from[name] as T. KeyError if it is missing; ValueError, naming it, if it is of another type or beyond T's range.
template <class T>
T value(const nanobind::dict& from, const char* name) {
    const nanobind::object item = from[name];
    T result{};
    if (!nanobind::try_cast(item, result)) {
        throw nanobind::value_error((std::string(name) + ": of another type, or out of range").c_str());
    }
    return result;
}
