/*
 * kernel/lib/error.h: the kernel's error codes. Functions return 0 (or a count) or one of these, negated.
 */
#ifndef LIB_ERROR_H
#define LIB_ERROR_H

enum error {
    E_AGAIN = 1,   /* started what it waits for: call again after the completion */
    E_NOMEM,       /* no frame */
    E_IO,          /* the device failed */
    E_CORRUPT,     /* data does not have the hash or the form that its pointer promised */
    E_NOSPACE,     /* the near store is full */
    E_INVAL,       /* the caller's argument makes no sense */
    E_NOENT,       /* not there */
    E_VERSION,     /* a format that this kernel does not know */
    E_FOREIGN,     /* not one of ours, or not the one that was asked for */
    E_RANGE,       /* a number from outside is out of range */
    E_LIMIT,       /* a fixed limit is reached */
    E_BUSY,
};

#endif
