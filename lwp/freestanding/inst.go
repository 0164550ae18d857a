package freestanding

// An inst is an instruction, reduced to what this package asks of it. The
// decoders of the ports (decode_GOARCH.go) produce it and nothing else of
// them is visible outside.
type inst struct {
	pc, next uintptr
	flow     flow
	target   uintptr // of a direct call, jump or branch
	cond     cond    // of a branch
	op       op
	dst, src operand
	pair     uint8   // of opMove: a register that is moved as well, to or from the word behind; noReg: none
	mem      operand // a memory operand that is read or written; none for addresses only computed
	kill     uint32  // registers written, a bit each
	bits     uint8   // how many bits opTest compares
	flags    bool    // the condition flags are written
	spAdd    int     // growth of the stack by the instruction, in bytes
	store    int     // bytes written to mem
}

type flow uint8

const (
	fallthru     flow = iota
	call              // to target
	jump              // to target
	branch            // to target or the next instruction
	ret               // to the caller
	callIndirect      // to src
	jumpIndirect      // to src
	trap              // nothing follows
)

// cond says when a branch is taken, in terms of the operand last tested.
type cond uint8

const (
	other cond = iota
	ifZero
	ifNonzero
)

type op uint8

const (
	opNone   op = iota
	opMove      // dst = src, a whole word
	opAddr      // dst = the address that src, a memory operand, denotes
	opTest      // compares src with zero and sets the flags
	opSetNZ     // dst = 1 if the operand last tested is not zero, otherwise 0
	opSetZ      // the reverse
	opSetSP     // SP = dst's value; the stack is as deep as the operand says
	opAddReg    // dst = src.reg + the register numbered src.n, or the difference if src.index
	opKeep      // 16 bits of dst, from bit src.reg on, = src.n
	opBlank     // does nothing
)

type operand struct {
	kind  okind
	reg   uint8 // of a register, or the base of a memory operand
	index bool  // the address has an index as well
	n     int64 // value of a constant, displacement of a memory operand
}

type okind uint8

const (
	none okind = iota
	register
	constant
	memory // at reg+n
	static // memory at the address n
	tls    // memory at n from the thread pointer
)

const noReg = 255

func reg(r uint8) operand    { return operand{kind: register, reg: r} }
func imm(n int64) operand    { return operand{kind: constant, n: n} }
func isReg(o operand) bool   { return o.kind == register }
func bit(r uint8) uint32     { return 1 << r }
func isStack(o operand) bool { return o.kind == memory && o.reg == regSP }
