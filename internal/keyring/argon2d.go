package keyring

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/crypto/blake2b"
)

// Argon2d (RFC 9106), the one variant that PuTTY offers and x/crypto/argon2 does
// not: which block is mixed in next depends on the blocks themselves. It opens
// files that somebody else encrypted so; nothing is encrypted with it here. Lanes
// are worked one after the other.

// An argon2Block is 1 KiB of the memory, RFC 9106, section 3.1.
type argon2Block [128]uint64

const argon2Slices = 4

// An argon2Input is what Argon2d takes, by the names of RFC 9106, section 3.1.
// PuTTY leaves the last two empty.
type argon2Input struct {
	password, salt, secret, data []byte
	passes, memory, lanes        uint32 // memory is KiB, at least 8 for each lane
}

// argon2d derives a key of that many bytes. The steps are those of RFC 9106,
// section 3.2.
func argon2d(in argon2Input, length uint32) []byte {
	h0 := argon2Hash0(in, length)
	defer clear(h0)
	segment := in.memory / (argon2Slices * in.lanes) // blocks of one lane in one slice
	lane := segment * argon2Slices                   // blocks of a lane
	memory := make([]argon2Block, lane*in.lanes)
	defer clear(memory)
	for l := range in.lanes {
		for i := range uint32(2) {
			seed := binary.LittleEndian.AppendUint32(append([]byte(nil), h0...), i)
			seed = binary.LittleEndian.AppendUint32(seed, l)
			memory[l*lane+i].set(argon2Long(seed, 1024))
			clear(seed)
		}
	}
	for pass := range in.passes {
		for slice := range uint32(argon2Slices) {
			for l := range in.lanes {
				for i := range segment {
					column := slice*segment + i
					if pass == 0 && column < 2 {
						continue
					}
					last := &memory[l*lane+(column+lane-1)%lane]
					other := &memory[argon2Reference(last[0], in.lanes, segment, pass, slice, l, i)]
					memory[l*lane+column].mix(last, other)
				}
			}
		}
	}
	final := memory[lane-1]
	for l := uint32(1); l < in.lanes; l++ {
		final.xor(&memory[l*lane+lane-1])
	}
	return argon2Long(final.bytes(), length)
}

// argon2Hash0 is step 1.
func argon2Hash0(in argon2Input, length uint32) []byte {
	var b []byte
	for _, n := range []uint32{in.lanes, length, in.memory, in.passes, 0x13, 0} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	for _, s := range [][]byte{in.password, in.salt, in.secret, in.data} {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	defer clear(b)
	sum := blake2b.Sum512(b)
	return sum[:]
}

// argon2Long is the hash of variable length, section 3.3.
func argon2Long(in []byte, length uint32) []byte {
	in = append(binary.LittleEndian.AppendUint32(nil, length), in...)
	sum := func(size uint32, in []byte) []byte {
		h, err := blake2b.New(int(size), nil)
		if err != nil {
			panic(err) // only for sizes that are not 1 to 64
		}
		h.Write(in)
		return h.Sum(nil)
	}
	if length <= blake2b.Size {
		return sum(length, in)
	}
	v := sum(blake2b.Size, in)
	var out []byte
	for length-uint32(len(out)) > blake2b.Size {
		out = append(out, v[:32]...)
		rest := length - uint32(len(out))
		v = sum(min(rest, blake2b.Size), v)
	}
	return append(out, v...)
}

// argon2Reference returns the index of the block to mix in, section 3.4: j is the
// first word of the block before; the rest says where the new block is.
func argon2Reference(j uint64, lanes, segment, pass, slice, lane, i uint32) uint32 {
	from := uint32(j>>32) % lanes
	if pass == 0 && slice == 0 {
		from = lane
	}
	// How many blocks of that lane may be taken, and the first of them.
	size, start := (argon2Slices-1)*segment, (slice+1)%argon2Slices*segment
	if pass == 0 {
		size, start = slice*segment, 0
	}
	switch {
	case from == lane:
		size += i - 1 // not the block before, which is mixed in anyway
	case i == 0:
		size-- // nor one that another lane may be about to write
	}
	x := (j & 0xffffffff) * (j & 0xffffffff) >> 32
	y := uint64(size) * x >> 32
	length := segment * argon2Slices
	return from*length + uint32((uint64(start)+uint64(size)-1-y)%uint64(length))
}

func (b *argon2Block) set(from []byte) {
	for i := range b {
		b[i] = binary.LittleEndian.Uint64(from[8*i:])
	}
}

func (b *argon2Block) bytes() []byte {
	out := make([]byte, 0, 8*len(b))
	for _, word := range b {
		out = binary.LittleEndian.AppendUint64(out, word)
	}
	return out
}

func (b *argon2Block) xor(other *argon2Block) {
	for i := range b {
		b[i] ^= other[i]
	}
}

// mix is the compression function G of section 3.5, whose result is XORed into b:
// b is zero in the first pass.
func (b *argon2Block) mix(x, y *argon2Block) {
	r := *x
	r.xor(y)
	z := r
	for i := 0; i < 128; i += 16 { // rows
		w := z[i : i+16]
		argon2Permute(&w[0], &w[1], &w[2], &w[3], &w[4], &w[5], &w[6], &w[7], &w[8], &w[9], &w[10], &w[11], &w[12], &w[13], &w[14], &w[15])
	}
	for i := 0; i < 16; i += 2 { // columns
		w := z[i:]
		argon2Permute(&w[0], &w[1], &w[16], &w[17], &w[32], &w[33], &w[48], &w[49], &w[64], &w[65], &w[80], &w[81], &w[96], &w[97], &w[112], &w[113])
	}
	b.xor(&r)
	b.xor(&z)
}

// argon2Permute is the permutation P of section 3.6.
func argon2Permute(v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15 *uint64) {
	argon2GB(v0, v4, v8, v12)
	argon2GB(v1, v5, v9, v13)
	argon2GB(v2, v6, v10, v14)
	argon2GB(v3, v7, v11, v15)
	argon2GB(v0, v5, v10, v15)
	argon2GB(v1, v6, v11, v12)
	argon2GB(v2, v7, v8, v13)
	argon2GB(v3, v4, v9, v14)
}

func argon2GB(a, b, c, d *uint64) {
	f := func(x, y uint64) uint64 { return x + y + 2*uint64(uint32(x))*uint64(uint32(y)) }
	*a = f(*a, *b)
	*d = bits.RotateLeft64(*d^*a, -32)
	*c = f(*c, *d)
	*b = bits.RotateLeft64(*b^*c, -24)
	*a = f(*a, *b)
	*d = bits.RotateLeft64(*d^*a, -16)
	*c = f(*c, *d)
	*b = bits.RotateLeft64(*b^*c, -63)
}
