package freestanding

import "golang.org/x/arch/x86/x86asm"

const (
	regSP   = 4
	regG    = 14
	regArg  = 0 // first argument, and result
	regCtx  = 2 // closure context
	retAddr = 8 // bytes that a call pushes
	result0 = 0 // where above SP assembly leaves the result of a function without arguments
	nregs   = 16
	maxInst = 15 // bytes
)

// argRegs hold the arguments of compiled functions, and the closure context.
//
// Source: cmd/compile/abi-internal.md.
var argRegs = [...]uint8{0, 3, 1, 7, 6, 8, 9, 10, 11, regCtx}

// decode reads the instruction at pc from b, which is not empty. An
// instruction that it does not know is skipped as far as its length is clear,
// and otherwise by a byte.
func decode(b []byte, pc uintptr) inst {
	var x x86asm.Inst
	err := x86asm.ErrUnrecognized
	if b[0] != 0xC4 && b[0] != 0xC5 && b[0] != 0x62 { // vector extensions
		full := b
		if len(b) < maxInst {
			full = make([]byte, maxInst) // x86asm reads past the end of some
			copy(full, b)
		}
		x, err = x86asm.Decode(full, 64)
	}
	if err != nil || x.Len == 0 || x.Len > len(b) {
		// It may write any register, and any word of the frame.
		return inst{pc: pc, next: pc + uintptr(length(b)), kill: ^uint32(1<<regG | 1<<regSP), flags: true, pair: noReg,
			mem: operand{kind: memory, reg: regSP, n: -1 << 30, index: true}, store: 8}
	}
	in := inst{pc: pc, next: pc + uintptr(x.Len), flags: true, pair: noReg}
	for _, a := range x.Args {
		if m, ok := a.(x86asm.Mem); ok {
			in.mem = memArg(m, in.next)
		}
	}
	if _, ok := x.Args[0].(x86asm.Mem); ok {
		in.store = x.MemBytes
		if in.store == 0 {
			in.store = 64
		}
	}
	a0, a1 := arg(x.Args[0], in.next), arg(x.Args[1], in.next)
	if r, ok := x.Args[0].(x86asm.Reg); ok {
		if n, ok := regNum(r); ok {
			in.kill = bit(n)
		}
	}
	if rel, ok := x.Args[0].(x86asm.Rel); ok {
		in.target = in.next + uintptr(int64(rel))
	}
	switch x.Op {
	case x86asm.CALL:
		in.flow, in.src, in.kill, in.store = callIndirect, a0, 0, 0
		if in.target != 0 {
			in.flow = call
		}
	case x86asm.JMP:
		in.flow, in.src, in.kill, in.flags, in.store = jumpIndirect, a0, 0, false, 0
		if in.target != 0 {
			in.flow = jump
		}
	case x86asm.RET:
		in.flow = ret
	case x86asm.UD1, x86asm.UD2, x86asm.HLT:
		in.flow = trap
	case x86asm.INT:
		if x.Opcode>>24 == 0xCC {
			in.flow = trap
		}
	case x86asm.JE:
		in.flow, in.cond, in.flags = branch, ifZero, false
	case x86asm.JNE:
		in.flow, in.cond, in.flags = branch, ifNonzero, false
	case x86asm.JA, x86asm.JAE, x86asm.JB, x86asm.JBE, x86asm.JCXZ, x86asm.JECXZ, x86asm.JRCXZ, x86asm.JG, x86asm.JGE,
		x86asm.JL, x86asm.JLE, x86asm.JNO, x86asm.JNP, x86asm.JNS, x86asm.JO, x86asm.JP, x86asm.JS:
		in.flow, in.flags = branch, false
	case x86asm.NOP:
		in.op, in.mem, in.store, in.kill, in.flags = opBlank, operand{}, 0, 0, false
	case x86asm.MOV:
		in.flags = false
		if x.DataSize == 64 || isConst(a1) && wide(x.Args[0]) {
			in.op, in.dst, in.src = opMove, a0, a1
		}
	case x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD, x86asm.MOVUPS, x86asm.MOVDQU, x86asm.MOVQ, x86asm.MOVAPS, x86asm.MOVD, x86asm.MOVSS, x86asm.MOVSD_XMM:
		in.flags = false
	case x86asm.LEA:
		in.flags, in.mem = false, operand{}
		if x.DataSize == 64 {
			in.op, in.dst, in.src = opAddr, a0, memArg(x.Args[1].(x86asm.Mem), in.next)
		}
	case x86asm.XCHG:
		if x.Args[0] == x.Args[1] { // XCHGL AX, AX
			in.op, in.kill, in.flags = opBlank, 0, false
			break
		}
		in.kill |= killArg(x.Args[1])
	case x86asm.XADD, x86asm.CMPXCHG, x86asm.CMPXCHG8B, x86asm.CMPXCHG16B:
		in.kill |= killArg(x.Args[1]) | bit(0) | bit(2)
	case x86asm.XOR:
		if x.Args[0] == x.Args[1] && wide(x.Args[0]) {
			in.op, in.dst, in.src = opMove, a0, imm(0)
		}
	case x86asm.TEST:
		in.kill, in.store = 0, 0
		if x.Args[0] == x.Args[1] {
			in.op, in.src = opTest, a0
			in.bits = testBits(x)
		}
	case x86asm.CMP:
		in.kill, in.store = 0, 0
		if isConst(a1) {
			in.op, in.src, in.dst = opTest, a0, a1
			in.bits = testBits(x)
		}
	case x86asm.SETNE, x86asm.SETE:
		in.flags = false
		if isReg(a0) {
			in.op, in.dst = opSetNZ, a0
			if x.Op == x86asm.SETE {
				in.op = opSetZ
			}
		}
	case x86asm.LOOP, x86asm.LOOPE, x86asm.LOOPNE:
		in.flow, in.kill, in.flags = branch, bit(1), false
	case x86asm.MUL, x86asm.IMUL, x86asm.DIV, x86asm.IDIV, x86asm.CWD, x86asm.CDQ, x86asm.CQO, x86asm.RDTSC, x86asm.RDTSCP:
		in.kill |= bit(0) | bit(2) | bit(1)
	case x86asm.CPUID, x86asm.XGETBV, x86asm.SYSCALL:
		in.kill = bit(0) | bit(1) | bit(2) | bit(3) | bit(11)
	case x86asm.MOVSB, x86asm.MOVSD, x86asm.MOVSW, x86asm.MOVSQ, x86asm.STOSB, x86asm.STOSD, x86asm.STOSQ, x86asm.STOSW,
		x86asm.LODSB, x86asm.LODSD, x86asm.LODSQ, x86asm.LODSW, x86asm.CMPSB, x86asm.SCASB:
		in.kill, in.mem, in.store = bit(0)|bit(1)|bit(6)|bit(7), operand{kind: memory, reg: 7, index: true}, 64
	case x86asm.PUSH:
		in.kill, in.flags, in.spAdd, in.store = 0, false, 8, 0
	case x86asm.POP:
		in.flags, in.spAdd = false, -8
	case x86asm.PUSHFQ, x86asm.PUSHF:
		in.flags, in.spAdd = false, 8
	case x86asm.POPFQ, x86asm.POPF:
		in.spAdd = -8
	case x86asm.SUB, x86asm.ADD:
		if isReg(a0) && a0.reg == regSP && isConst(a1) {
			in.spAdd, in.kill = int(a1.n), 0
			if x.Op == x86asm.ADD {
				in.spAdd = -in.spAdd
			}
		}
	}
	if in.op == opAddr && in.dst.reg == regSP && isStack(in.src) && !in.src.index {
		in.op, in.spAdd = opNone, -int(in.src.n)
	}
	in.kill &^= bit(regSP) // what is not recognized above is a switch of stacks, and not followed
	return in
}

// wide tells registers whose change changes the whole word.
func wide(a x86asm.Arg) bool {
	r, ok := a.(x86asm.Reg)
	return ok && r >= x86asm.EAX && r <= x86asm.R15
}

// testBits returns how wide a comparison is.
func testBits(x x86asm.Inst) uint8 {
	switch r, ok := x.Args[0].(x86asm.Reg); {
	case !ok:
		return uint8(min(8, x.MemBytes) * 8)
	case r >= x86asm.RAX:
		return 64
	case r >= x86asm.EAX:
		return 32
	case r >= x86asm.AX:
		return 16
	}
	return 8
}

func isConst(o operand) bool { return o.kind == constant }

func arg(a x86asm.Arg, next uintptr) operand {
	switch a := a.(type) {
	case x86asm.Reg:
		if n, ok := regNum(a); ok {
			return reg(n)
		}
	case x86asm.Imm:
		return imm(int64(a))
	case x86asm.Mem:
		return memArg(a, next)
	}
	return operand{}
}

func memArg(m x86asm.Mem, next uintptr) operand {
	switch {
	case m.Segment == x86asm.FS:
		return operand{kind: tls, n: int64(int32(m.Disp)), index: m.Base != 0}
	case m.Base == x86asm.RIP:
		return operand{kind: static, n: int64(next) + m.Disp}
	case m.Base == 0:
		return operand{kind: static, n: int64(int32(m.Disp)), index: m.Index != 0}
	}
	n, ok := regNum(m.Base)
	if !ok {
		return operand{}
	}
	return operand{kind: memory, reg: n, n: m.Disp, index: m.Index != 0}
}

func killArg(a x86asm.Arg) uint32 {
	if r, ok := a.(x86asm.Reg); ok {
		if n, ok := regNum(r); ok {
			return bit(n)
		}
	}
	return 0
}

// regNum returns the number of a general register in machine code.
func regNum(r x86asm.Reg) (uint8, bool) {
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		return uint8(r - x86asm.RAX), true
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return uint8(r - x86asm.EAX), true
	case r >= x86asm.AX && r <= x86asm.R15W:
		return uint8(r - x86asm.AX), true
	case r >= x86asm.AL && r <= x86asm.BL:
		return uint8(r - x86asm.AL), true
	case r >= x86asm.AH && r <= x86asm.BH:
		return uint8(r - x86asm.AH), true
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return uint8(r-x86asm.SPB) + 4, true
	}
	return 0, false
}

// length returns the length in bytes of an instruction that x86asm does not
// know: vector and other extensions in assembly, all of which keep to the
// common form of prefixes, opcode, operand bytes and an 8-bit constant in some
// opcode maps. It is 1 where b does not look like that.
//
// Source: Intel SDM volume 2, chapter 2.
func length(b []byte) int {
	i := 0
	for i < len(b) && (b[i] == 0x66 || b[i] == 0xF2 || b[i] == 0xF3 || b[i] == 0x2E || b[i] == 0x64 || b[i] == 0xF0) {
		i++
	}
	if i < len(b) && b[i]&0xF0 == 0x40 { // REX
		i++
	}
	at := func(i int) byte {
		if i < len(b) {
			return b[i]
		}
		return 0
	}
	var space byte // opcode map: 1 is 0F, 2 is 0F 38, 3 is 0F 3A
	switch at(i) {
	case 0xC5:
		space, i = 1, i+2
	case 0xC4:
		space, i = at(i+1)&0x1F, i+3
	case 0x62:
		space, i = at(i+1)&7, i+4
	case 0x0F:
		switch at(i + 1) {
		case 0x38:
			space, i = 2, i+2
		case 0x3A:
			space, i = 3, i+2
		default:
			space, i = 1, i+1
		}
	default:
		return 1
	}
	opcode := at(i)
	i++
	if space == 1 && (opcode == 0x77 || opcode == 0xA2 || opcode == 0x31) { // VZEROUPPER, CPUID, RDTSC
		return min(i, len(b))
	}
	mod, rm := at(i)>>6, at(i)&7
	i++
	if mod != 3 && rm == 4 {
		if mod == 0 && at(i)&7 == 5 {
			i += 4
		}
		i++
	}
	switch {
	case mod == 1:
		i++
	case mod == 2, mod == 0 && rm == 5:
		i += 4
	}
	if space == 3 || space == 1 && (opcode >= 0x70 && opcode <= 0x73 || opcode == 0xA4 || opcode == 0xAC || opcode == 0xBA ||
		opcode == 0xC2 || opcode >= 0xC4 && opcode <= 0xC6) {
		i++
	}
	if i > len(b) {
		return 1
	}
	return i
}
