package asm

import "syscall"

const sysArchPrctl = syscall.SYS_ARCH_PRCTL
