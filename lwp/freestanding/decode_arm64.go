package freestanding

import (
	"encoding/binary"
	"math/bits"
)

const (
	regSP   = 31 // as a base; elsewhere 31 is the zero register
	regG    = 28
	regArg  = 0
	regCtx  = 26
	retAddr = 0 // the link register; its place in memory is part of the frame
	result0 = 8
	nregs   = 32
)

// argRegs hold the arguments of compiled functions, and the closure context.
//
// Source: cmd/compile/abi-internal.md.
var argRegs = [...]uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, regCtx}

// decode reads the instruction at pc from b, which is not empty. Words have
// their meaning by a few bits each, so this reads them itself; the test
// compares it with arm64asm over the whole text of a program.
//
// Source: Arm A-profile A64 instruction set, index by encoding.
func decode(b []byte, pc uintptr) inst {
	in := inst{pc: pc, next: pc + 4, pair: noReg}
	if len(b) < 4 {
		in.next = pc + uintptr(len(b))
		return in
	}
	w := binary.LittleEndian.Uint32(b)
	rd, rn, rm := uint8(w&31), uint8(w>>5&31), uint8(w>>16&31)
	in.kill = bit(rd) &^ bit(31)
	is := func(mask, value uint32) bool { return w&mask == value }
	to := func(shift, n uint) uintptr { return pc + uintptr(field(w, shift, n)*4) }
	switch {
	case is(0x7C000000, 0x14000000): // B, BL
		in.flow, in.target, in.kill = jump, to(0, 26), 0
		if w>>31 == 1 {
			in.flow = call
		}
	case is(0xFF000010, 0x54000000): // B.cond
		in.flow, in.target, in.kill = branch, to(5, 19), 0
		switch w & 15 {
		case 0:
			in.cond = ifZero
		case 1:
			in.cond = ifNonzero
		case 14, 15:
			in.flow = jump
		}
	case is(0x7E000000, 0x34000000), is(0x7E000000, 0x36000000): // CBZ, CBNZ; TBZ, TBNZ
		in.flow, in.kill, in.target = branch, 0, to(5, 19)
		test := true
		in.bits = 32 << (w >> 31)
		if is(0x7E000000, 0x36000000) {
			in.target = to(5, 14)
			test = w>>31 == 0 && w>>19&31 == 0 // bit 0, of a bool
			in.bits = 1
		}
		if test {
			in.op, in.src, in.cond = opTest, reg(rd), ifZero
			if w>>24&1 == 1 {
				in.cond = ifNonzero
			}
		}
	case is(0xFFFFFC1F, 0xD65F0000):
		in.flow, in.kill = ret, 0
	case is(0xFFFFFC1F, 0xD61F0000):
		in.flow, in.src, in.kill = jumpIndirect, reg(rn), 0
	case is(0xFFFFFC1F, 0xD63F0000):
		in.flow, in.src, in.kill = callIndirect, reg(rn), 0
	case w == 0, is(0xFFE0001F, 0xD4200000): // UDF, BRK
		in.flow, in.kill = trap, 0
	case is(0xFFFFF01F, 0xD503201F): // NOP and other hints
		in.op, in.kill = opBlank, 0
	case is(0xFF000000, 0xD4000000): // SVC
		in.kill = bit(0)
	case is(0x1F000000, 0x10000000): // ADR, ADRP
		v := field(w, 5, 19)<<2 | int64(w>>29&3)
		base := int64(pc)
		if w>>31 == 1 {
			v, base = v<<12, base&^0xFFF
		}
		in.op, in.dst, in.src = opMove, reg(rd), imm(base+v)
	case is(0xFF80001F, 0x7100001F): // CMP immediate, 32 bits
		in.bits = 32
		in.op, in.src, in.dst, in.flags, in.kill = opTest, reg(rn), imm(int64(w>>10&0xFFF)<<(12*(w>>22&1))), true, 0
	case is(0x9F000000, 0x91000000): // ADD, SUB immediate, 64 bits, and with flags
		n := int64(w >> 10 & 0xFFF)
		if w>>22&1 == 1 {
			n <<= 12
		}
		if w>>30&1 == 1 {
			n = -n
		}
		in.addSub(w, rd, rn, n)
	case is(0xBFE00000, 0x8B200000): // ADD, SUB extended register: of SP, for large frames
		in.op, in.dst, in.src = opAddReg, reg(rd), operand{kind: memory, reg: rn, n: int64(rm), index: w>>30&1 == 1}
	case is(0xFFE0FFE0, 0xAA0003E0): // MOV register
		in.op, in.dst, in.src = opMove, reg(rd), reg(rm)
		if rm == 31 {
			in.src = imm(0)
		}
	case is(0x7F800000, 0x52800000), is(0xFF800000, 0x92800000): // MOVZ, MOVN
		n := int64(w>>5&0xFFFF) << (w >> 21 & 3 * 16)
		if w>>30&1 == 0 {
			n = ^n
		}
		in.op, in.dst, in.src = opMove, reg(rd), imm(n)
	case is(0xFF800000, 0xF2800000): // MOVK
		in.op, in.dst, in.src = opKeep, reg(rd), operand{kind: constant, n: int64(w >> 5 & 0xFFFF), reg: uint8(w >> 21 & 3 * 16)}
	case is(0xFF8003E0, 0xB20003E0): // MOV bitmask
		if v, ok := bitmask(w); ok {
			in.op, in.dst, in.src = opMove, reg(rd), imm(v)
		}
	case is(0xFF20FC1F, 0xEB00001F) && rm == 31: // CMP Xn, ZR
		in.op, in.src, in.bits, in.flags, in.kill = opTest, reg(rn), 64, true, 0
	case is(0xFFFF0FE0, 0x9A9F07E0): // CSET
		switch w >> 12 & 15 {
		case 0:
			in.op, in.dst = opSetNZ, reg(rd)
		case 1:
			in.op, in.dst = opSetZ, reg(rd)
		}
	case is(0x0A000000, 0x08000000): // loads and stores
		in.loadStore(w, pc, rd, rn)
	default:
		in.flags = w>>29&1 == 1 || w>>28&15 == 0xE // the S bit of data processing; vector and FP compares
	}
	return in
}

func (in *inst) addSub(w uint32, rd, rn uint8, n int64) {
	if w>>29&1 == 1 {
		in.flags = true
		if rd == 31 {
			in.kill = 0
			in.op, in.src, in.dst, in.bits = opTest, reg(rn), imm(-n), 64
		}
		return
	}
	switch {
	case rd == regSP && rn == regSP:
		in.spAdd = -int(n)
	case rd == regSP && n == 0:
		in.op, in.src = opSetSP, reg(rn)
	case rd == regSP:
	default:
		in.op, in.dst, in.src = opAddr, reg(rd), operand{kind: memory, reg: rn, n: n}
	}
}

// loadStore decodes the loads and stores, as far as they are of whole words
// or move SP; of the others it notes what they overwrite.
func (in *inst) loadStore(w uint32, pc uintptr, rt, rn uint8) {
	is := func(mask, value uint32) bool { return w&mask == value }
	size, vector := uint(w>>30), w>>26&1 == 1
	load := w>>22&3 != 0
	bytes := 1 << size
	n, change, pair := int64(0), int64(0), false
	m := operand{kind: memory, reg: rn}
	switch {
	case is(0x3B000000, 0x39000000): // unsigned offset
		if vector && w>>23&1 == 1 {
			bytes, load = 16, w>>22&1 == 1
		} else if vector {
			load = w>>22&1 == 1
		}
		n = int64(w>>10&0xFFF) * int64(bytes)
	case is(0x3B200000, 0x38000000): // 9-bit offset; before, after, or without change of the base
		if vector {
			load = w>>22&1 == 1
			if w>>23&1 == 1 {
				bytes = 16
			}
		}
		n = field(w, 12, 9)
		switch w >> 10 & 3 {
		case 1: // after
			n, change = 0, n
		case 3: // before
			change = n
		}
	case is(0x3B200C00, 0x38200800): // register offset
		m.index = true
		if vector {
			load = w>>22&1 == 1
		}
	case is(0x3B200C00, 0x38200000): // atomics: rt is what was there
		in.mem = m
		in.store = bytes
		return
	case is(0x3A000000, 0x28000000): // pairs
		pair = true
		load = w>>22&1 == 1
		bytes = 4 << (w >> 31)
		if vector {
			bytes = 4 << (w >> 30)
		}
		n = field(w, 15, 7) * int64(bytes)
		bytes *= 2
		switch w >> 23 & 3 {
		case 1:
			n, change = 0, n
		case 3:
			change = n
		}
	case is(0x3B000000, 0x18000000): // literal
		in.mem = operand{kind: static, n: int64(pc) + field(w, 5, 19)*4}
		if size == 1 && !vector {
			in.op, in.dst, in.src = opMove, reg(rt), in.mem
		}
		return
	default: // exclusive, compare and swap; vector structures
		in.kill |= bit(uint8(w>>16&31)) | bit(uint8(w>>10&31))
		in.kill &^= bit(31)
		in.mem, in.store = m, 16
		return
	}
	m.n = n
	in.mem = m
	if !load {
		in.store, in.kill = bytes, 0
	} else if pair {
		in.kill |= bit(uint8(w>>10&31)) &^ bit(31)
	}
	if vector {
		in.kill = 0
	}
	if pair && size == 2 && !vector {
		in.pair = uint8(w >> 10 & 31)
	}
	if (size == 3 && !pair || in.pair != noReg) && !vector {
		in.op, in.dst, in.src = opMove, reg(rt), m
		if !load {
			in.dst, in.src = m, reg(rt)
			if rt == 31 {
				in.src = imm(0)
			}
		}
	}
	switch {
	case change == 0:
	case rn == regSP:
		in.spAdd = -int(change)
	default:
		in.kill |= bit(rn)
	}
}

// field returns n bits of w as a signed number.
func field(w uint32, shift, n uint) int64 {
	return int64(int32(w<<(32-n-shift)) >> (32 - n))
}

// bitmask decodes the constant of a logical instruction: a run of ones,
// rotated, repeated.
func bitmask(w uint32) (v int64, ok bool) {
	n, immr, imms := w>>22&1, w>>16&63, w>>10&63
	log := bits.Len32(n<<6|^imms&63) - 1
	if log < 1 {
		return 0, false
	}
	size := uint(1) << log
	ones := uint(imms)&(size-1) + 1
	if ones == size {
		return 0, false
	}
	run := uint64(1)<<ones - 1
	r := uint(immr) & (size - 1)
	run = run>>r | run<<(size-r)
	if size < 64 {
		run &= 1<<size - 1
	}
	for ; size < 64; size *= 2 {
		run |= run << size
	}
	return int64(run), true
}
