/* pcap_write.h - capture files written by hand: both byte orders, both clocks, pcapng. For test programs. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct writer {
	FILE *out;
	bool swapped, pcapng;
	uint32_t per_second;	/* fractions of the timestamp */
};

static void w32(const struct writer *w, uint32_t v)
{
	if (w->swapped)
		v = __builtin_bswap32(v);
	fwrite(&v, 4, 1, w->out);
}

static void w16(const struct writer *w, uint16_t v)
{
	if (w->swapped)
		v = __builtin_bswap16(v);
	fwrite(&v, 2, 1, w->out);
}

static void write_head(const struct writer *w, uint32_t linktype)
{
	if (w->pcapng) {
		w32(w, 0x0a0d0d0a);
		w32(w, 28);
		w32(w, 0x1a2b3c4d);
		w16(w, 1);
		w16(w, 0);
		w32(w, UINT32_MAX);	/* section length: not stated */
		w32(w, UINT32_MAX);
		w32(w, 28);
		w32(w, 1);		/* interface */
		w32(w, 20);
		w16(w, (uint16_t)linktype);
		w16(w, 0);
		w32(w, 0);		/* no snap length */
		w32(w, 20);
		return;
	}
	w32(w, w->per_second == 1000000 ? 0xa1b2c3d4 : 0xa1b23c4d);
	w16(w, 2);
	w16(w, 4);
	w32(w, 0);
	w32(w, 0);
	w32(w, 262144);
	w32(w, linktype);
}

static void write_frame(const struct writer *w, const void *data, size_t caplen, size_t wire, uint64_t ns)
{
	uint32_t padded = (uint32_t)(caplen + 3) & ~3u;
	uint64_t us = ns / 1000;

	if (w->pcapng) {
		w32(w, 6);
		w32(w, 32 + padded);
		w32(w, 0);
		w32(w, (uint32_t)(us >> 32));
		w32(w, (uint32_t)us);
		w32(w, (uint32_t)caplen);
		w32(w, (uint32_t)wire);
		fwrite(data, 1, caplen, w->out);
		fwrite("\0\0\0", 1, padded - caplen, w->out);
		w32(w, 32 + padded);
		return;
	}
	w32(w, (uint32_t)(ns / 1000000000));
	w32(w, (uint32_t)(ns % 1000000000 / (1000000000 / w->per_second)));
	w32(w, (uint32_t)caplen);
	w32(w, (uint32_t)wire);
	fwrite(data, 1, caplen, w->out);
}
