/* compiler.h - the few compiler attributes the tree uses. Nothing here has code that runs by itself. */
#pragma once

#define MUST_CHECK	__attribute__((warn_unused_result))
#define CLEANUP(fn)	__attribute__((cleanup(fn)))
#define PRINTF(fmt, va)	__attribute__((format(printf, fmt, va)))
#define NORETURN	__attribute__((noreturn))
#define CACHE_ALIGNED	__attribute__((aligned(64)))
#define PACKED		__attribute__((packed))

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define MIN_OF(a, b)	((a) < (b) ? (a) : (b))
#define MAX_OF(a, b)	((a) > (b) ? (a) : (b))
