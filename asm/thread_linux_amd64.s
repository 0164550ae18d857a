// Thread pointer, g, spin hint and cycle counter for linux/amd64.
//
// What stands at the thread pointer (FS base), by who made the thread:
//
//	          0(FS)       8(FS)      the g slot
//	ours      TCB.Self    Magic      below FS, where the linker put it
//	Go        m.tls[1]    m.tls[2]   m.tls[0] = -8(FS)
//	C library self        dtv        below FS, where the linker put it

#include "go_asm.h"
#include "textflag.h"

#define archSetFS 0x1002
#define archGetFS 0x1003

// func ThreadPointer() uintptr
//
// By arch_prctl: RDFSBASE needs a CPU and a kernel that allow it.
TEXT ·ThreadPointer(SB), NOSPLIT, $8-8
	MOVQ $const_sysArchPrctl, AX
	MOVQ $archGetFS, DI
	LEAQ fs-8(SP), SI
	SYSCALL
	MOVQ fs-8(SP), AX
	MOVQ AX, ret+0(FP)
	RET

// func SetThreadPointer(tp uintptr) (errno uintptr)
TEXT ·SetThreadPointer(SB), NOSPLIT, $0-16
	MOVQ $const_sysArchPrctl, AX
	MOVQ $archSetFS, DI
	MOVQ tp+0(FP), SI
	SYSCALL
	NEGQ AX
	MOVQ AX, errno+8(FP)
	RET

// func Getg() uintptr
TEXT ·Getg(SB), NOSPLIT, $0-8
	MOVQ TLS, CX
	MOVQ 0(CX)(TLS*1), AX
	MOVQ AX, ret+0(FP)
	RET

// func getgReg() uintptr
//
// The ABI0 wrapper that Go calls this through leaves R14 as it was.
TEXT ·getgReg(SB), NOSPLIT, $0-8
	MOVQ R14, ret+0(FP)
	RET

// func FramePointer() uintptr
TEXT ·FramePointer(SB), NOSPLIT|NOFRAME, $0-8
	MOVQ BP, ret+0(FP)
	RET

// func TLSOffset() int
//
// The address of the slot, less the thread pointer.
TEXT ·TLSOffset(SB), NOSPLIT, $8-8
	MOVQ $const_sysArchPrctl, AX
	MOVQ $archGetFS, DI
	LEAQ fs-8(SP), SI
	SYSCALL
	MOVQ TLS, CX
	LEAQ 0(CX)(TLS*1), AX
	MOVQ AX, ret+0(FP)
	RET

// func Headroom()
//
// The frame is what the prologue checks; it is not touched.
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
	PAUSE
	RET

// func Cycles() uint64
TEXT ·Cycles(SB), NOSPLIT, $0-8
	RDTSC
	SHLQ $32, DX
	ORQ DX, AX
	MOVQ AX, ret+0(FP)
	RET

// func readClock(fn uintptr, clock int32, ts *[2]int64) int32
//
// A call by the C ABI, which preserves BX and wants SP a multiple of 16.
TEXT ·readClock(SB), NOSPLIT, $0-28
	MOVQ fn+0(FP), AX
	MOVL clock+8(FP), DI
	MOVQ ts+16(FP), SI
	MOVQ SP, BX
	ANDQ $~15, SP
	CALL AX
	MOVQ BX, SP
	MOVL AX, ret+24(FP)
	RET
