// code has name hold the address of text: see funcOf.
#define code(name, text) \
	DATA name+0(SB)/8, $text(SB) \
	GLOBL name(SB), RODATA|NOPTR, $8

// resume goes on with context BX by a return, or jumps to special. The result is
// for one that comes back from a switchIf.
#define resume() \
	MOVQ Context_Guard(BX), DX \
	MOVQ Context_SP(BX), CX \
	MOVQ DX, G_StackGuard0(R14) \
	TESTB $(const_fresh|const_returns), CX \
	JNE special \
	MOVQ CX, SP \
	MOVQ Context_BP(BX), BP \
	MOVL $1, AX \
	RET
