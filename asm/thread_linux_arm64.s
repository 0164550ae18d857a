// Thread pointer, g, spin hint and cycle counter for linux/arm64; see the
// amd64 file.
//
// What stands at the thread pointer (TPIDR_EL0), by who made the thread:
//
//	          0(TP)       8(TP)
//	ours      TCB.Self    Magic
//	Go        TP is zero, unless a C library is linked
//	C library dtv         private

#include "go_asm.h"
#include "textflag.h"

// func ThreadPointer() uintptr
TEXT ·ThreadPointer(SB), NOSPLIT, $0-8
	MRS TPIDR_EL0, R0
	MOVD R0, ret+0(FP)
	RET

// func SetThreadPointer(tp uintptr) (errno uintptr)
//
// The register is writable from user space; there is no error.
TEXT ·SetThreadPointer(SB), NOSPLIT, $0-16
	MOVD tp+0(FP), R0
	MSR R0, TPIDR_EL0
	MOVD ZR, errno+8(FP)
	RET

// func Getg() uintptr
TEXT ·Getg(SB), NOSPLIT, $0-8
	MOVD g, ret+0(FP)
	RET

// func getgReg() uintptr
TEXT ·getgReg(SB), NOSPLIT, $0-8
	MOVD g, ret+0(FP)
	RET

// func FramePointer() uintptr
TEXT ·FramePointer(SB), NOSPLIT|NOFRAME, $0-8
	MOVD R29, ret+0(FP)
	RET

// func TLSOffset() int
TEXT ·TLSOffset(SB), NOSPLIT, $0-8
	MOVD ZR, ret+0(FP)
	RET

// func Headroom()
TEXT ·Headroom(SB), 0, $1536-0
	RET

// func StopRoom()
TEXT ·StopRoom(SB), 0, $512-0
	RET

// func ParkRoom()
TEXT ·ParkRoom(SB), 0, $688-0
	RET

// func Relax()
TEXT ·Relax(SB), NOSPLIT, $0-0
	YIELD
	RET

// func Cycles() uint64
//
// The virtual counter; it ticks at CNTFRQ_EL0, far below the CPU's clock.
TEXT ·Cycles(SB), NOSPLIT, $0-8
	MRS CNTVCT_EL0, R0
	MOVD R0, ret+0(FP)
	RET

// func readClock(fn uintptr, clock int32, ts *[2]int64) int32
//
// The C ABI preserves g, and SP is a multiple of 16.
TEXT ·readClock(SB), NOSPLIT, $16-28
	MOVD fn+0(FP), R9
	MOVW clock+8(FP), R0
	MOVD ts+16(FP), R1
	CALL (R9)
	MOVW R0, ret+24(FP)
	RET
