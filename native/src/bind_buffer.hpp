// Arrays that a call takes as they lie: cheaper than nanobind's own.
#pragma once
#include <Python.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

// A view of an object's buffer of T, float or int16_t, for the length of a call.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        if (held_) PyBuffer_Release(&view_);
    }

    // False, with no Python error set, if `object` has no contiguous buffer of native T.
    bool open(PyObject* object, bool writable) {
        const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(object, &view_, flags) != 0) {
            PyErr_Clear();
            return false;
        }
        held_ = true;
        return view_.format != nullptr && std::strcmp(view_.format, sizeof(T) == 4 ? "f" : "h") == 0;
    }

    // Whether the shape is (columns,), or with rows (any, columns).
    bool fits(bool rows, std::int64_t columns) const {
        return rows ? view_.ndim == 2 && view_.shape[1] == columns : view_.ndim == 1 && view_.shape[0] == columns;
    }
    bool is_row() const { return view_.ndim == 1; }
    std::int64_t rows() const { return view_.shape[0]; }
    std::size_t size() const { return static_cast<std::size_t>(view_.len) / sizeof(T); }
    T* data() const { return static_cast<T*>(view_.buf); }
    bool overlaps(const Buffer& other) const {
        const std::less<const T*> before;
        return before(data(), other.data() + other.size()) && before(other.data(), data() + size());
    }
    std::string shape() const {
        std::string text = "(";
        for (int i = 0; i < view_.ndim; ++i) text += (i > 0 ? ", " : "") + std::to_string(view_.shape[i]);
        return text + (view_.ndim == 1 ? ",)" : ")");
    }

  private:
    Py_buffer view_;
    bool held_ = false;
};
