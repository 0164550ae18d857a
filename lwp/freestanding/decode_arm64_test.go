package freestanding

import (
	"strings"
	"testing"

	"golang.org/x/arch/arm64/arm64asm"
)

// The decoder reads bits by itself; arm64asm, slower, is the second opinion.
func TestDecoderAgreesWithArm64asm(t *testing.T) {
	n := 0
	for _, f := range everyFunction(t) {
		program.Lock()
		f.decode()
		for i := range f.insts {
			in := &f.insts[i]
			x, err := arm64asm.Decode(code(in.pc, in.next))
			if err != nil {
				continue
			}
			n++
			want := fallthru
			switch name := x.Op.String(); {
			case name == "BL":
				want = call
			case name == "BLR":
				want = callIndirect
			case name == "BR":
				want = jumpIndirect
			case name == "RET":
				want = ret
			case name == "BRK":
				want = trap
			case name == "B":
				want = jump
				if _, conditional := x.Args[0].(arm64asm.Cond); conditional {
					want = branch
				}
			case strings.HasPrefix(name, "CB"), strings.HasPrefix(name, "TB") && name != "TBL" && name != "TBX":
				want = branch
			}
			if in.flow != want {
				t.Errorf("%s+%#x: %v: flow %d, want %d", f.name, in.pc-f.entry, x, in.flow, want)
			}
			for _, a := range x.Args {
				if rel, ok := a.(arm64asm.PCRel); ok && in.target != 0 && in.target != in.pc+uintptr(int64(rel)) {
					t.Errorf("%s+%#x: %v: target %#x", f.name, in.pc-f.entry, x, in.target)
				}
			}
			// What is written must be noted as written.
			if r, ok := x.Args[0].(arm64asm.Reg); ok && r >= arm64asm.X0 && r <= arm64asm.X30 && in.store == 0 && want == fallthru {
				switch x.Op {
				case arm64asm.CMP, arm64asm.CMN, arm64asm.TST, arm64asm.CCMP, arm64asm.CCMN, arm64asm.MSR, arm64asm.PRFM:
				default:
					if in.kill&bit(uint8(r-arm64asm.X0)) == 0 {
						t.Errorf("%s+%#x: %v: register not noted as written", f.name, in.pc-f.entry, x)
					}
				}
			}
		}
		f.insts = nil
		program.Unlock()
	}
	if n < 100000 {
		t.Errorf("only %d instructions compared", n)
	}
}
