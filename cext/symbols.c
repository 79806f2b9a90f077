/* symbols.c - see symbols.h for what it is for.
 *
 * pyelftools takes 100 ms for the 2,208 symbols of a libc, libelf a third of a
 * millisecond; a libpython with .symtab has twenty times as many.  libelf is
 * there anyway: libbpf needs it. */

#include "symbols.h"

#include <elf.h>
#include <errno.h>
#include <gelf.h>
#include <libelf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	SEGMENTS_MAX = 64,     /* executable ones; real files have one or two */
	NAME_BYTES_MAX = 4096, /* a longer name is no function that anyone wrote */
	WANTED_MAX = 4096,
};

struct segment {
	uint64_t address;
	uint64_t file_offset;
	uint64_t size_bytes; /* in the file */
};

/* One opened file, for the length of a call. */
struct file {
	Elf *elf;
	const struct mw_symbols_limits *limits;
	struct segment segments[SEGMENTS_MAX];
	uint32_t segment_count;
};

/* The first bytes decide how much libelf will allocate for headers, so they
 * are checked before libelf sees them. */
static int check_header(int fd, const struct mw_symbols_limits *limits)
{
	Elf64_Ehdr header;
	ssize_t got = pread(fd, &header, sizeof(header), 0);

	if (got < 0)
		return -errno;
	if (got != sizeof(header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
		return -EINVAL;
	if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB)
		return -EINVAL;
	/* 0 with a table means extended numbering: more than 65,279 sections. */
	if (header.e_shnum > limits->sections_max || (header.e_shnum == 0 && header.e_shoff != 0))
		return -E2BIG;
	if (header.e_phnum == PN_XNUM)
		return -E2BIG;
	return 0;
}

static void file_close(struct file *file)
{
	elf_end(file->elf);
}

static int file_open(struct file *file, int fd, const struct mw_symbols_limits *limits)
{
	size_t header_count;
	int rc = check_header(fd, limits);

	if (rc != 0)
		return rc;
	memset(file, 0, sizeof(*file));
	file->limits = limits;
	elf_version(EV_CURRENT);
	file->elf = elf_begin(fd, ELF_C_READ, NULL); /* pread, never mmap: see the header */
	if (!file->elf)
		return -EINVAL;
	if (elf_kind(file->elf) != ELF_K_ELF || elf_getphdrnum(file->elf, &header_count) != 0) {
		file_close(file);
		return -EINVAL;
	}
	for (size_t i = 0; i < header_count && file->segment_count < SEGMENTS_MAX; i++) {
		GElf_Phdr segment;

		if (!gelf_getphdr(file->elf, (int)i, &segment))
			break;
		/* Probes go where code is, and an offset must be one that mmap could have mapped. */
		if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X) || segment.p_filesz == 0 ||
		    segment.p_offset > INT64_MAX || segment.p_filesz > INT64_MAX ||
		    segment.p_vaddr > UINT64_MAX - segment.p_filesz)
			continue;
		file->segments[file->segment_count++] = (struct segment){
		    .address = segment.p_vaddr,
		    .file_offset = segment.p_offset,
		    .size_bytes = segment.p_filesz,
		};
	}
	return 0;
}

/* Where the byte at address lies in the file; UINT64_MAX if in no code. */
static uint64_t offset_of(const struct file *file, uint64_t address)
{
	for (uint32_t i = 0; i < file->segment_count; i++) {
		const struct segment *segment = &file->segments[i];

		if (address >= segment->address && address - segment->address < segment->size_bytes)
			return address - segment->address + segment->file_offset;
	}
	return UINT64_MAX;
}

/* Bytes of a section, or NULL if it has none or more than we read. */
static Elf_Data *section_data(const struct file *file, Elf_Scn *section, const GElf_Shdr *header, int *rc)
{
	if (header->sh_type == SHT_NOBITS)
		return NULL;
	if (header->sh_size > file->limits->table_bytes_max) {
		*rc = -E2BIG;
		return NULL;
	}
	return elf_getdata(section, NULL);
}

/* Called once per function; a negative return ends the walk and is returned. */
typedef int (*visit_fn)(void *context, const char *name, size_t name_bytes, const struct mw_symbol *symbol);

/* A name inside its table, with its NUL; NULL if it runs past the end. */
static const char *name_at(const Elf_Data *names, uint64_t at, size_t *bytes)
{
	const char *name;
	size_t room, length;

	if (!names->d_buf || at >= names->d_size)
		return NULL;
	name = (const char *)names->d_buf + at;
	room = names->d_size - at;
	if (room > NAME_BYTES_MAX)
		room = NAME_BYTES_MAX;
	length = strnlen(name, room);
	if (length == 0 || length == room)
		return NULL;
	*bytes = length;
	return name;
}

static int walk_table(const struct file *file, Elf_Data *table, const Elf_Data *names, visit_fn visit, void *context)
{
	size_t count = table->d_size / sizeof(Elf64_Sym);

	if (count > INT32_MAX)
		return -E2BIG;
	for (size_t i = 1; i < count; i++) {
		struct mw_symbol found = {0};
		const char *name;
		size_t bytes;
		GElf_Sym symbol;
		int rc;

		if (!gelf_getsym(table, (int)i, &symbol))
			break;
		/* Not STT_GNU_IFUNC: its value is the resolver, not the function of that name. */
		if (symbol.st_shndx == SHN_UNDEF || symbol.st_value == 0 || GELF_ST_TYPE(symbol.st_info) != STT_FUNC)
			continue;
		found.address = symbol.st_value;
		found.size_bytes = symbol.st_size;
		found.is_local = GELF_ST_BIND(symbol.st_info) == STB_LOCAL;
		found.file_offset = offset_of(file, symbol.st_value);
		if (found.file_offset == UINT64_MAX)
			continue;
		name = name_at(names, symbol.st_name, &bytes);
		if (!name)
			continue;
		rc = visit(context, name, bytes, &found);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* All tables of one type. */
static int walk(const struct file *file, uint32_t type, visit_fn visit, void *context)
{
	Elf_Scn *section = NULL;

	while ((section = elf_nextscn(file->elf, section)) != NULL) {
		GElf_Shdr header, names_header;
		Elf_Scn *names_section;
		Elf_Data *table, *names;
		int rc = 0;

		if (!gelf_getshdr(section, &header) || header.sh_type != type)
			continue;
		table = section_data(file, section, &header, &rc);
		if (!table || !table->d_buf) {
			if (rc < 0)
				return rc;
			continue;
		}
		names_section = elf_getscn(file->elf, header.sh_link);
		if (!names_section || !gelf_getshdr(names_section, &names_header) || names_header.sh_type != SHT_STRTAB)
			continue;
		names = section_data(file, names_section, &names_header, &rc);
		if (!names) {
			if (rc < 0)
				return rc;
			continue;
		}
		rc = walk_table(file, table, names, visit, context);
		if (rc < 0)
			return rc;
		break; /* a real file has one of each type; a hostile one with 4,096 gets no more */
	}
	return 0;
}

static uint32_t hash_name(const char *name, size_t bytes)
{
	uint32_t hash = 2166136261U; /* FNV-1a */

	for (size_t i = 0; i < bytes; i++)
		hash = (hash ^ (uint8_t)name[i]) * 16777619U;
	return hash;
}

/* The wanted names, in open addressing at half load at most. */
struct wanted {
	const char **names;
	size_t *bytes;
	uint32_t *slots; /* index + 1; 0: empty */
	uint32_t mask;
	uint32_t count;
	int found;
	struct mw_symbol *rets;
};

static void wanted_deinit(struct wanted *wanted)
{
	free(wanted->names);
	free(wanted->bytes);
	free(wanted->slots);
}

static int wanted_init(struct wanted *wanted, const char *names, uint64_t names_bytes, uint32_t count,
		       struct mw_symbol *rets)
{
	uint32_t slot_count = 16;

	if (count > WANTED_MAX)
		return -E2BIG;
	while (slot_count < 2 * count)
		slot_count *= 2;
	memset(wanted, 0, sizeof(*wanted));
	wanted->names = calloc(count + 1, sizeof(*wanted->names));
	wanted->bytes = calloc(count + 1, sizeof(*wanted->bytes));
	wanted->slots = calloc(slot_count, sizeof(*wanted->slots));
	if (!wanted->names || !wanted->bytes || !wanted->slots) {
		wanted_deinit(wanted);
		return -ENOMEM;
	}
	wanted->mask = slot_count - 1;
	wanted->count = count;
	wanted->rets = rets;
	for (uint32_t i = 0; i < count; i++) {
		size_t length = strnlen(names, names_bytes);
		uint32_t slot;

		if (length == names_bytes) { /* fewer names than said, or no NUL */
			wanted_deinit(wanted);
			return -EINVAL;
		}
		wanted->names[i] = names;
		wanted->bytes[i] = length;
		slot = hash_name(names, length) & wanted->mask;
		while (wanted->slots[slot] != 0)
			slot = (slot + 1) & wanted->mask;
		wanted->slots[slot] = i + 1;
		rets[i] = (struct mw_symbol){.file_offset = UINT64_MAX};
		names += length + 1;
		names_bytes -= length + 1;
	}
	return 0;
}

static int visit_wanted(void *context, const char *name, size_t name_bytes, const struct mw_symbol *symbol)
{
	struct wanted *wanted = context;
	uint32_t slot = hash_name(name, name_bytes) & wanted->mask;

	for (; wanted->slots[slot] != 0; slot = (slot + 1) & wanted->mask) {
		uint32_t i = wanted->slots[slot] - 1;

		if (wanted->bytes[i] != name_bytes || memcmp(wanted->names[i], name, name_bytes) != 0)
			continue;
		if (wanted->rets[i].file_offset == UINT64_MAX) {
			wanted->rets[i] = *symbol;
			wanted->found++;
		}
	}
	return 0;
}

int mw_symbols_find(int fd, const struct mw_symbols_limits *limits, const char *names, uint64_t names_bytes,
		    uint32_t count, struct mw_symbol *rets)
{
	struct wanted wanted;
	struct file file;
	int rc = wanted_init(&wanted, names, names_bytes, count, rets);

	if (rc < 0)
		return rc;
	rc = file_open(&file, fd, limits);
	if (rc == 0) {
		rc = walk(&file, SHT_DYNSYM, visit_wanted, &wanted);
		if (rc == 0 && (uint32_t)wanted.found < count)
			rc = walk(&file, SHT_SYMTAB, visit_wanted, &wanted);
		file_close(&file);
	}
	if (rc == 0)
		rc = wanted.found;
	wanted_deinit(&wanted);
	return rc;
}

struct entry {
	uint64_t file_offset;
	uint64_t address;
	uint64_t size_bytes;
	uint64_t name_at;
	uint32_t is_local;
};

struct mw_symbols {
	struct entry *entries; /* ascending by file_offset */
	char *names;
	uint64_t names_bytes;
	uint64_t names_room;
	uint64_t omitted_total;
	uint32_t count;
	uint32_t room;
	uint64_t names_bytes_max;
	uint32_t symbols_max;
};

static int visit_table(void *context, const char *name, size_t name_bytes, const struct mw_symbol *symbol)
{
	struct mw_symbols *symbols = context;

	if (symbols->count == symbols->symbols_max ||
	    symbols->names_bytes_max - symbols->names_bytes < name_bytes + 1) {
		symbols->omitted_total++;
		return 0;
	}
	if (symbols->count == symbols->room) {
		uint32_t room = symbols->room ? symbols->room * 2 : 1024;
		struct entry *entries;

		if (room > symbols->symbols_max)
			room = symbols->symbols_max;
		entries = realloc(symbols->entries, room * sizeof(*entries));
		if (!entries)
			return -ENOMEM;
		symbols->entries = entries;
		symbols->room = room;
	}
	if (symbols->names_room - symbols->names_bytes < name_bytes + 1) {
		uint64_t room = 2 * symbols->names_room + NAME_BYTES_MAX + 1;
		char *names = realloc(symbols->names, room);

		if (!names)
			return -ENOMEM;
		symbols->names = names;
		symbols->names_room = room;
	}
	symbols->entries[symbols->count++] = (struct entry){
	    .file_offset = symbol->file_offset,
	    .address = symbol->address,
	    .size_bytes = symbol->size_bytes,
	    .name_at = symbols->names_bytes,
	};
	memcpy(symbols->names + symbols->names_bytes, name, name_bytes);
	symbols->names[symbols->names_bytes + name_bytes] = '\0';
	symbols->names_bytes += name_bytes + 1;
	return 0;
}

/* By offset; of several names for one place the earlier, .dynsym's, comes first. */
static int compare_entries(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;

	if (a->file_offset != b->file_offset)
		return a->file_offset < b->file_offset ? -1 : 1;
	return a->name_at < b->name_at ? -1 : a->name_at > b->name_at;
}

/* .symtab repeats .dynsym, and one place may have ten names: one is enough. */
static void keep_one_per_offset(struct mw_symbols *symbols)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < symbols->count; i++) {
		if (kept > 0 && symbols->entries[kept - 1].file_offset == symbols->entries[i].file_offset) {
			if (symbols->entries[kept - 1].size_bytes == 0)
				symbols->entries[kept - 1].size_bytes = symbols->entries[i].size_bytes;
			continue;
		}
		symbols->entries[kept++] = symbols->entries[i];
	}
	symbols->count = kept;
}

int mw_symbols_create(int fd, const struct mw_symbols_limits *limits, struct mw_symbols **ret)
{
	struct mw_symbols *symbols;
	struct file file;
	int rc;

	rc = file_open(&file, fd, limits);
	if (rc < 0)
		return rc;
	symbols = calloc(1, sizeof(*symbols));
	if (!symbols) {
		file_close(&file);
		return -ENOMEM;
	}
	symbols->symbols_max = limits->symbols_max;
	symbols->names_bytes_max = limits->names_bytes_max;
	rc = walk(&file, SHT_DYNSYM, visit_table, symbols);
	if (rc == 0)
		rc = walk(&file, SHT_SYMTAB, visit_table, symbols);
	file_close(&file);
	if (rc < 0) {
		mw_symbols_destroy(symbols);
		return rc;
	}
	if (symbols->count > 0)
		qsort(symbols->entries, symbols->count, sizeof(*symbols->entries), compare_entries);
	keep_one_per_offset(symbols);
	*ret = symbols;
	return 0;
}

void mw_symbols_destroy(struct mw_symbols *symbols)
{
	if (!symbols)
		return;
	free(symbols->entries);
	free(symbols->names);
	free(symbols);
}

int mw_symbols_at(const struct mw_symbols *symbols, uint64_t file_offset, struct mw_symbol *ret, const char **name)
{
	enum { STEPS_BACK_MAX = 16 }; /* a small function may lie inside a larger one's stated size */
	uint32_t low = 0, high = symbols->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (symbols->entries[middle].file_offset <= file_offset)
			low = middle + 1;
		else
			high = middle;
	}
	for (uint32_t back = 1; back <= STEPS_BACK_MAX && back <= low; back++) {
		const struct entry *entry = &symbols->entries[low - back];
		bool reaches = file_offset - entry->file_offset < entry->size_bytes;

		/* Without a size only the nearest can claim the place. */
		if (!reaches && !(back == 1 && entry->size_bytes == 0))
			continue;
		ret->address = entry->address;
		ret->file_offset = entry->file_offset;
		ret->size_bytes = entry->size_bytes;
		ret->is_local = entry->is_local;
		ret->reserved = 0;
		*name = symbols->names + entry->name_at;
		return 0;
	}
	return -ENOENT;
}

uint32_t mw_symbols_count(const struct mw_symbols *symbols)
{
	return symbols->count;
}

uint64_t mw_symbols_omitted(const struct mw_symbols *symbols)
{
	return symbols->omitted_total;
}

uint64_t mw_symbols_in_use_bytes(const struct mw_symbols *symbols)
{
	return sizeof(*symbols) + symbols->room * sizeof(*symbols->entries) + symbols->names_room;
}
