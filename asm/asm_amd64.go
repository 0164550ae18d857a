package asm

import "syscall"

//lint:ignore U1000 read by assembly
const sysArchPrctl = syscall.SYS_ARCH_PRCTL

// prologue is how compiled code begins that checks its stack:
// CMPQ SP, 16(R14), the comparison with g.stackguard0.
var prologue = []byte{0x49, 0x3b, 0x66, 0x10}

// slotNeeded says that compiled code finds g in the TLS slot.
const slotNeeded = true

// startArg is where, above a new context's SP, the argument of its function is.
const startArg = 0

const vdsoClockName = "__vdso_clock_gettime"
