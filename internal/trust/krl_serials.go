package trust

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"slices"
)

// Serial numbers are written as a list, 8 bytes each; as a range; or as a bitmap, one
// bit each and one for each number in between. Which of these is shortest depends on
// the neighbours, since a section of its own costs as well.

// A packing is the cheapest way to write all runs up to one, given the form of that
// one. Costs are in bits.
type packing struct {
	cost  uint64
	start uint64 // of the bitmap
	from  uint8  // form of the run before
	join  bool   // this run lies in the section of the run before
}

// The forms of a run, in the order of a row of packings, and their kinds of section.
const (
	asList = uint8(iota)
	asRange
	asBitmap
)

const (
	headBits = 8 + 32 // of a section: its kind and length
	// mapBits are of a bitmap besides its bits: the first number, the length, and up
	// to 15 bits for whole bytes and for a first bit that is not set.
	mapBits = 64 + 32 + 15
	// spanBits bounds a bitmap: OpenSSH reads no integer that is longer
	// (SSHBUF_MAX_BIGNUM in sshbuf.h).
	spanBits = 2048 * 8
	never    = math.MaxUint64 / 4
)

// appendSerials appends sections that hold the serial numbers of runs, which joinRanges
// made, in as few bytes as possible.
func appendSerials(out []byte, runs []SerialRange) []byte {
	if len(runs) == 0 {
		return out
	}
	rows := make([][3]packing, len(runs))
	for i, r := range runs {
		rows[i] = pack(runs, rows, i, r)
	}
	forms := make([]uint8, len(runs))
	form := cheapest(rows[len(rows)-1])
	for i := len(rows) - 1; i >= 0; i-- {
		forms[i] = form
		form = rows[i][form].from
	}
	for i := 0; i < len(runs); {
		end := i + 1
		for end < len(runs) && forms[end] == forms[i] && rows[end][forms[end]].join {
			end++
		}
		out = appendRuns(out, forms[i], runs[i:end])
		i = end
	}
	return out
}

// pack returns the cheapest packing of run i in each form, after those of the runs
// before it.
func pack(runs []SerialRange, rows [][3]packing, i int, r SerialRange) (row [3]packing) {
	n := min(r.Last-r.First, 1<<31) + 1
	var before [3]packing
	best := asList
	if i > 0 {
		before = rows[i-1]
		best = cheapest(before)
	}
	row[asList] = packing{cost: before[best].cost + headBits + 64*n, from: best}
	row[asRange] = packing{cost: before[best].cost + headBits + 2*64, from: best}
	row[asBitmap] = packing{cost: never, from: best}
	if n <= spanBits {
		row[asBitmap] = packing{cost: before[best].cost + headBits + mapBits + n, from: best, start: r.First}
	}
	if i == 0 {
		return row
	}
	if cost := before[asList].cost + 64*n; cost < row[asList].cost {
		row[asList] = packing{cost: cost, from: asList, join: true}
	}
	start := before[asBitmap].start
	if cost := before[asBitmap].cost + r.Last - runs[i-1].Last; before[asBitmap].cost < never && r.Last-start < spanBits && cost < row[asBitmap].cost {
		row[asBitmap] = packing{cost: cost, from: asBitmap, join: true, start: start}
	}
	return row
}

func cheapest(row [3]packing) uint8 {
	best := asList
	for form := asRange; form <= asBitmap; form++ {
		if row[form].cost < row[best].cost {
			best = form
		}
	}
	return best
}

// appendRuns appends one section of the given form.
func appendRuns(out []byte, form uint8, runs []SerialRange) []byte {
	var data []byte
	switch form {
	case asList:
		for _, r := range runs {
			for n := r.First; ; n++ {
				data = binary.BigEndian.AppendUint64(data, n)
				if n == r.Last {
					break
				}
			}
		}
		return appendSection(out, krlSerialList, data)
	case asRange:
		data = binary.BigEndian.AppendUint64(data, runs[0].First)
		data = binary.BigEndian.AppendUint64(data, runs[0].Last)
		return appendSection(out, krlSerialRange, data)
	}
	first, last := runs[0].First, runs[len(runs)-1].Last
	bitmap := make([]byte, (last-first)/8+1) // most significant byte first
	for _, r := range runs {
		for i := r.First - first; i <= r.Last-first; i++ {
			bitmap[len(bitmap)-1-int(i/8)] |= 1 << (i % 8)
		}
	}
	if bitmap[0]&0x80 != 0 {
		bitmap = slices.Insert(bitmap, 0, 0) // an mpint that is not negative
	}
	data = binary.BigEndian.AppendUint64(data, first)
	data = appendString(data, string(bitmap))
	return appendSection(out, krlSerialBitmap, data)
}

// readSerials adds the serial numbers of one section.
func (c *RevokedCertificates) readSerials(kind byte, w wire) error {
	switch kind {
	case krlSerialList:
		for len(w) > 0 {
			n, ok := w.long()
			if !ok {
				return malformedKRL("list of serial numbers")
			}
			c.Serials = append(c.Serials, SerialRange{n, n})
		}
		return nil
	case krlSerialRange:
		first, ok1 := w.long()
		last, ok2 := w.long()
		if !ok1 || !ok2 || len(w) > 0 {
			return malformedKRL("range of serial numbers")
		}
		c.Serials = append(c.Serials, SerialRange{first, last})
		return nil
	case krlSerialBitmap:
		first, ok1 := w.long()
		bitmap, ok2 := w.mpint()
		if !ok1 || !ok2 || len(w) > 0 || bitmap.BitLen() > spanBits || bitmap.BitLen() > 0 && first+uint64(bitmap.BitLen()-1) < first {
			return malformedKRL("bitmap of serial numbers")
		}
		c.Serials = append(c.Serials, runsOf(first, bitmap)...)
		return nil
	}
	return Errorf(Invalid, "key revocation list has a section of certificates of kind %#x, which is none that is known", kind)
}

// runsOf returns the numbers that are set in a bitmap that begins with first.
func runsOf(first uint64, bitmap *big.Int) (runs []SerialRange) {
	for at, word := range bitmap.Bits() {
		for word != 0 {
			i := bits.TrailingZeros(uint(word))
			word &= word - 1
			n := first + uint64(at*bits.UintSize+i)
			if len(runs) > 0 && runs[len(runs)-1].Last+1 == n {
				runs[len(runs)-1].Last = n
				continue
			}
			runs = append(runs, SerialRange{n, n})
		}
	}
	return runs
}
