// The short ways of package sched for linux/amd64. The protocol of Inside, Claimed
// and Top is that of its queue: after the store to Inside and a look at the other
// two the queue is the worker's.
//
// They are called as compiled Go, by func values, but for end. What is saved of a
// context that switches is its caller's return, or that of a frame which has the
// frame pointer as any other.

#include "go_asm.h"
#include "textflag.h"
#include "switch_amd64.h"

code(·yieldPC, ·yield)
code(·spawnPC, ·spawn)
code(·joinPC, ·join)
code(·endPC, ·end)

// runner loads the caller's Runner into DI, or jumps to slow. The TCB is at the
// thread pointer.
#define runner() \
	CMPL 8(FS), $const_lowMagic \
	JNE slow \
	MOVQ TCB_Worker(FS), DI \
	TESTQ DI, DI \
	JEQ slow

// slowly goes on in Go.
#define slowly(fn) \
	MOVQ fn(SB), DX \
	MOVQ (DX), CX \
	JMP CX

// yield()
//
// What bounds it is a chain through memory: who runs, and who comes next.
//
//	AX  the Runnable that runs
//	BX  the one that is to run
//	DI  the Runner
TEXT ·yield(SB), NOSPLIT|NOFRAME, $0
	runner()
	MOVQ Runner_Current(DI), AX
	MOVL Runner_Tick(DI), DX
	SUBL $1, DX
	JEQ slow
	MOVL $1, Runner_Inside(DI)
	CMPL Runner_Claimed(DI), $0
	JNE leave
	CMPQ Runner_Top(DI), $0
	JNE leave
	MOVQ Runnable_Next(AX), BX
	MOVL DX, Runner_Tick(DI)
	MOVQ BX, Runner_Current(DI)

	// From here on as switchTo, to which a jump would take a twentieth of all this.
	// That SP and what it decides come first is a tenth.
	MOVQ Context_SP(BX), CX
	MOVQ SP, Context_SP(AX)
	TESTB $(const_fresh|const_returns), CX
	JNE special
	MOVQ BP, Context_BP(AX)
	MOVQ Context_Guard(BX), DX
	MOVQ CX, SP
	MOVQ Context_BP(BX), BP
	MOVL $0, Runner_Inside(DI) // AX can be taken from the ring from here on
	MOVQ DX, G_StackGuard0(R14)
	MOVL $1, AX // BX may come back from a switchIf
	RET

special:
	MOVQ BP, Context_BP(AX)
	MOVL $0, Runner_Inside(DI)
	JMP ·jump(SB)

leave:
	MOVL $0, Runner_Inside(DI)

slow:
	slowly(·slowYield)

// spawn(fn AX, arg BX uintptr) (serial AX uint64, link BX uint32, err CX DI error)
//
//	SI  the new Runnable
//	DI  the Runner
//	R8  its Shared
//	R9  its Loop
//	R11 its Base
TEXT ·spawn(SB), NOSPLIT|NOFRAME, $0
	runner()
	TESTQ AX, AX
	JEQ slow
	MOVQ Runner_Shared(DI), R8
	MOVQ Runner_Free(DI), SI
	CMPL Shared_Closing(R8), $0
	JNE slow
	TESTQ SI, SI
	JEQ slow
	MOVL $1, Runner_Inside(DI)
	CMPL Runner_Claimed(DI), $0
	JNE leave
	MOVQ Runner_Top(DI), DX
	MOVQ Runner_Loop(DI), R9
	MOVQ Runner_Base(DI), R11
	CMPQ DX, R9
	JNE link

make:
	MOVQ Runnable_Next(SI), DX
	MOVQ DX, Runner_Free(DI)
	DECL Runner_Frees(DI)

	// As Context.Init.
	MOVQ BX, (const_startArg-const_StartRoom-const_StackTop)(SI)
	LEAQ (const_fresh-const_StartRoom-const_StackTop)(SI), R9
	MOVQ R9, Context_SP(SI)
	MOVQ AX, Context_BP(SI)
	MOVL Runner_Link(DI), R10
	MOVQ Runnable_Serial(SI), AX
	MOVL R10, Runnable_Worker(SI)
	MOVL $const_Ready, Runnable_State(SI)

	MOVQ SI, BX
	SUBQ R11, BX
	MOVQ SI, Runner_Top(DI)
	INCQ Runner_Spawns(DI)
	SHRQ $const_LinkShift, BX
	MOVL $0, Runner_Inside(DI)
	CMPL Shared_Hungry(R8), $0 // after the store, see package sched's core
	JNE hungry
	XORL CX, CX
	XORL DI, DI
	RET

link: // DX, so far the newest, at the end of the ring
	TESTQ DX, DX
	JEQ leave
	MOVL Runnable_Prev(R9), R10
	MOVQ R9, Runnable_Next(DX)
	MOVL R10, Runnable_Prev(DX)
	SHLQ $const_LinkShift, R10
	MOVQ DX, Runnable_Next(R10)(R11*1)
	SUBQ R11, DX
	SHRQ $const_LinkShift, DX
	MOVL DX, Runnable_Prev(R9)
	INCL Runner_Length(DI)
	JMP make

hungry:
	slowly(·slowSpawned)

leave:
	MOVL $0, Runner_Inside(DI)

slow:
	slowly(·slowSpawn)

// claim writes the link of SI into the join word of DX, or jumps to joined.
#define claim() \
	MOVQ AX, R12 \
	MOVQ Runnable_Word(DX), AX \
	MOVQ SI, R11 \
	SUBQ R10, R11 \
	SHRQ $const_LinkShift, R11 \
	TESTL AX, AX \
	JNE joined \
	ORQ AX, R11 \
	LOCK \
	CMPXCHGQ R11, Runnable_Word(DX) \
	JNE joined

// join(serial AX uint64, link BX uint32) (err AX BX error)
//
//	CX  the tick afterwards
//	DX  the Runnable that is joined, in the queue
//	SI  the one that runs
//	DI  the Runner
//	R10 its Base
//	R12 serial
TEXT ·join(SB), NOSPLIT|NOFRAME, $0
	runner()
	MOVL Runner_Tick(DI), CX
	SUBL $2, CX // there and back; where it is 1, what is ready may be in no queue
	JLE slow
	MOVL $1, Runner_Inside(DI)
	CMPL Runner_Claimed(DI), $0
	JNE leave

	// The newest? That this goes from Top to BX, and not from BX to its place as
	// below, is a tenth of a spawn and join.
	MOVQ Runner_Top(DI), DX
	MOVQ Runner_Base(DI), R10
	TESTQ DX, DX
	JEQ leave // turning
	MOVQ DX, R9
	SUBQ R10, R9
	SHRQ $const_LinkShift, R9
	CMPL R9, BX
	JNE ring
	CMPQ Runnable_Serial(DX), AX // Loop has one that nobody else has
	JNE leave
	MOVQ Runner_Current(DI), SI
	claim()
	MOVQ Runner_Loop(DI), R8
	MOVQ R8, Runner_Top(DI)

switch:
	MOVL CX, Runner_Tick(DI)
	MOVL $const_Joining, Runnable_State(SI)
	MOVQ DX, Runner_Current(DI)
	PUSHQ BP
	MOVQ SP, BP
	CALL ·into(SB)
	POPQ BP
	MOVQ TCB_Worker(FS), DI // another thread's, maybe
	MOVQ Runner_Current(DI), SI
	TESTL $const_Inherits, Runnable_Flags(SI)
	JNE inherits
	XORL AX, AX
	XORL BX, BX
	RET

ring: // The same for one that is not the newest.
	LEAL -const_FirstLink(BX), R9
	CMPL R9, Runner_Links(DI)
	JCC leave
	MOVL BX, DX
	SHLQ $const_LinkShift, DX
	ADDQ R10, DX
	CMPQ Runnable_Serial(DX), AX
	JNE leave
	MOVL Runner_Link(DI), R9
	CMPL Runnable_State(DX), $const_Ready
	JNE leave
	CMPL R9, Runnable_Worker(DX)
	JNE leave
	TESTL $const_Pinned, Runnable_Flags(DX)
	JNE leave
	MOVQ Runner_Current(DI), SI
	CMPQ DX, SI
	JEQ leave
	claim()
	MOVQ Runnable_Next(DX), R9
	MOVL Runnable_Prev(DX), R11
	DECL Runner_Length(DI)
	MOVL R11, Runnable_Prev(R9)
	SHLQ $const_LinkShift, R11
	MOVQ R9, Runnable_Next(R10)(R11*1)
	JMP switch

inherits:
	slowly(·slowJoined)

joined: // or given a token, or detached
	MOVQ R12, AX

leave:
	MOVL $0, Runner_Inside(DI)

slow:
	slowly(·slowJoin)

// into switches from SI to DX, both of Runner DI.
TEXT ·into(SB), NOSPLIT|NOFRAME, $0
	MOVQ SP, Context_SP(SI)
	MOVQ BP, Context_BP(SI)
	MOVL $0, Runner_Inside(DI)
	MOVQ DX, BX
	MOVQ Context_SP(BX), CX
	MOVQ Context_Guard(BX), DX
	TESTB $const_fresh, CX
	JEQ other
	MOVQ DX, G_StackGuard0(R14)
	JMP ·run(SB)

other:
	JMP ·jump(SB)

// end is where run goes when the function of a context has returned.
//
//	BX  the Runnable that waits for the end
//	SI  the one that ends; its slot is nobody's before this thread is off its stack
TEXT ·end(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ BP, AX // vet wants it looked at before it is given up
	MOVQ TCB_Worker(FS), AX
	MOVQ Runner_Current(AX), SI
	MOVL Runner_Frees(AX), CX
	CMPL Runner_Turning(AX), $0
	JNE slow
	CMPL CX, Runner_Batch(AX)
	JCC slow
	MOVL Runnable_Word(SI), BX
	CMPL Runnable_Flags(SI), $0
	JNE slow
	LEAL -const_FirstLink(BX), DX
	CMPL DX, Runner_Links(AX)
	JCC slow
	MOVL Runner_Link(AX), DX
	SHLQ $const_LinkShift, BX
	ADDQ Runner_Base(AX), BX
	CMPL DX, Runnable_Worker(BX)
	JNE slow

	INCQ Runner_Ends(AX)
	MOVQ Runnable_Serial(SI), DX
	MOVQ Runner_Free(AX), R9
	MOVL $0, Runnable_State(SI)
	INCQ DX
	MOVQ DX, R8
	SHLQ $const_WordShift, R8
	MOVQ R8, Runnable_Word(SI)
	MOVQ DX, Runnable_Serial(SI)
	MOVQ R9, Runnable_Next(SI)
	INCL CX
	MOVQ SI, Runner_Free(AX)
	MOVL CX, Runner_Frees(AX)
	MOVL $const_Ready, Runnable_State(BX)
	MOVQ BX, Runner_Current(AX)

	resume()

special:
	JMP ·jump(SB)

slow:
	JMP ·endInFull(SB)
