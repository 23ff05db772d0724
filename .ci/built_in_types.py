"""Prints the lines of src/testing/kinds/types.txt out of the Go sources of Kubernetes' types.

built_in_types.py API APIMACHINERY APIEXTENSIONS AGGREGATOR KINDS: four checkouts of staging repositories,
k8s.io/api and so on, at one tag, and src/testing/kinds/kinds.txt."""
import re, sys
API, AM, EXT, AGG = sys.argv[1:5]
# short name -> (file globs, openapi prefix)
SECTIONS = {
 'meta': ([f'{AM}/pkg/apis/meta/v1/types.go', f'{AM}/pkg/apis/meta/v1/micro_time.go'], 'io.k8s.apimachinery.pkg.apis.meta.v1'),
 'extensions': ([f'{EXT}/pkg/apis/apiextensions/v1/types.go', f'{EXT}/pkg/apis/apiextensions/v1/types_jsonschema.go'], 'io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1'),
 'registration': ([f'{AGG}/pkg/apis/apiregistration/v1/types.go'], 'io.k8s.kube-aggregator.pkg.apis.apiregistration.v1'),
}
for group in ['admissionregistration','apps','authentication','authorization','autoscaling','batch','certificates','coordination','core','discovery','events','flowcontrol','networking','node','policy','rbac','resource','scheduling','storage']:
    SECTIONS[group] = ([f'{API}/{group}/v1/types.go'], f'io.k8s.api.{group}.v1')
SECTIONS['autoscaling2'] = ([f'{API}/autoscaling/v2/types.go'], 'io.k8s.api.autoscaling.v2')
IMPORTS = {'metav1':'meta','v1':None,'core':'core','corev1':'core','apiv1':'core','authenticationv1':'authentication'}
structs, aliases = {}, {}
def strip(t): return t.strip()
for section,(files,_) in SECTIONS.items():
    for f in files:
        try: text=open(f).read()
        except FileNotFoundError: continue
        imports={}
        for alias,path in re.findall(r'^\t(\w+)? ?"(k8s\.io/[^"]+)"', text, re.M):
            parts=path.split('/')
            name = alias or parts[-1]
            if path.startswith('k8s.io/api/'): imports[name]=parts[2]
            elif path.endswith('meta/v1'): imports[name]='meta'
            else: imports[name]='@'+parts[-1]
        lines=text.split('\n'); i=0; comment=[]; typecomment=[]
        while i<len(lines):
            l=lines[i]
            if l.startswith('//'): typecomment.append(l)
            elif l=='' : typecomment=typecomment  # markers may stand apart
            m=re.match(r'type (\w+) struct ?\{(\})?', l)
            if m:
                name=m[1]; fields=[]; comment=[]
                if m[2] is None:
                    i+=1
                    while lines[i]!='}':
                        s=lines[i].strip()
                        if s.startswith('//'): comment.append(s)
                        elif s and '`' in s:
                            decl,tag=s.split('`',1); tag=tag.split('`')[0]
                            parts=decl.split()
                            t=parts[-1] if len(parts)>1 else parts[0]
                            j=re.search(r'json:"([^"]*)"',tag); p=re.search(r'protobuf:"([^"]*)"',tag)
                            mk=re.search(r'patchMergeKey:"([^"]*)"',tag)
                            ps=re.search(r'patchStrategy:"([^"]*)"',tag)
                            fields.append(dict(type=t,json=j[1] if j else '',proto=p[1] if p else '',mk=mk and mk[1],ps=ps and ps[1],comment=comment,imports=imports))
                            comment=[]
                        else: comment=comment if not s else []
                        i+=1
                structs[(section,name)]=dict(fields=fields,comment=typecomment); typecomment=[]
            else:
                m=re.match(r'type (\w+) (?!struct|interface|func)(\S+)',l)
                if m: aliases[(section,m[1])]=(m[2],imports); typecomment=[]
                elif l and not l.startswith('//'): typecomment=[]
            i+=1
SPECIAL={('meta','Time'):'T',('meta','MicroTime'):'M',('meta','Duration'):'D',('meta','FieldsV1'):'R',('@resource','Quantity'):'Q',('@intstr','IntOrString'):'I',('@runtime','RawExtension'):'R',('@types','UID'):'s',
 ('extensions','JSON'):'J',('extensions','JSONSchemaPropsOrArray'):'J',('extensions','JSONSchemaPropsOrBool'):'J',('extensions','JSONSchemaPropsOrStringArray'):'J',('extensions','JSONSchemaProps'):'J',
 ('authentication','ExtraValue'):'X',('authorization','ExtraValue'):'X',('certificates','ExtraValue'):'X'}
PRIM={'string':'s','bool':'b','int32':'i','int64':'l','int':'l','float64':'d','uint32':'i','[]byte':'y','byte':'y','uint8':'y'}
needed=[]; seen=set()
def resolve(section,t,imports):
    """-> (prefix, base) """
    pre=''; ptr=False
    while True:
        if t.startswith('*'): t=t[1:]; ptr=True; continue
        if t=='[]byte': return pre,'y',ptr
        if t.startswith('[]'): t=t[2:]; pre+='*'; continue
        m=re.match(r'map\[[\w.]+\](.*)',t)
        if m: t=m[1]; pre+='%'; continue
        if t in PRIM: return pre,PRIM[t],ptr
        sec,name=(section,t)
        if '.' in t:
            a,name=t.split('.',1); sec=imports.get(a, IMPORTS.get(a) or '@'+a)
        if (sec,name) in SPECIAL: return pre,SPECIAL[(sec,name)],ptr
        if (sec,name) in aliases:
            t,imports2=aliases[(sec,name)]; imports=imports2
            section=sec; continue
        if (sec,name) in structs:
            if (sec,name) not in seen: seen.add((sec,name)); needed.append((sec,name))
            return pre,(sec,name),ptr
        raise Exception(f'{section} {t} {sec} {name}')
ROOTS=[l.split() for l in open(sys.argv[5]) if not l.startswith('#')]
GROUP={'':'core','apiregistration.k8s.io':'registration','apiextensions.k8s.io':'extensions'}
def section_of(gv,):
    g,_,v=gv.rpartition('/')
    s=GROUP.get(g) or g.split('.')[0]
    return 'autoscaling2' if gv=='autoscaling/v2' else s
kinds=[]
for r in ROOTS:
    if 'gone' in r[3].split(','): continue
    kinds.append((section_of(r[0]),r[1]))
kinds+= [('meta','Status'),('meta','DeleteOptions'),('meta','PartialObjectMetadata'),('meta','ListMeta'),('policy','Eviction'),('autoscaling','Scale'),('authentication','TokenRequest')]
VERSION={'meta':'meta.k8s.io/v1','policy':'policy/v1','autoscaling':'autoscaling/v1','authentication':'authentication.k8s.io/v1'}
for r in ROOTS:
    if 'gone' not in r[3].split(','): VERSION[section_of(r[0])]=r[0]
for k in kinds:
    if k not in seen:
        seen.add(k); needed.append(k)
out={}
while needed:
    sec,name=needed.pop(0)
    st=structs[(sec,name)]
    fields=[]
    for f in st['fields']:
        js=f['json'].split(','); jn=js[0]; inline='inline' in js
        base=f['type']
        if base.endswith('TypeMeta'): continue
        if jn=='-' : continue
        num=re.search(r'\b(?:bytes|varint|fixed64|fixed32),(\d+)',f['proto'])
        pre,b,ptr=resolve(sec,base,f['imports'])
        markers=' '.join(f['comment'])
        opt='+optional' in markers or 'omitempty' in js or 'omitzero' in js
        text=''
        keys=re.findall(r'\+listMapKey=(\w+)',markers)
        if pre=='*' and keys and '+listType=map' in markers: 
            if f['mk'] and f['mk'] in keys: keys.remove(f['mk']); keys.insert(0,f['mk'])
            text='{'+','.join(keys)+'}'
        elif f['mk']: text='{'+f['mk']+'}'
        elif pre=='*' and ('+listType=set' in markers or f['ps']=='merge'): text='{}'
        if f['mk'] and keys and f['mk'] not in keys: print('MK',sec,name,jn,f['mk'],keys,file=sys.stderr); text='{'+f['mk']+'|'+','.join(keys)+'}'
        if text and 'merge' not in (f['ps'] or ''): text+='~'
        if f['mk'] and not keys: print('NOKEYS',sec,name,jn,f['mk'],re.findall(r'\+listType=\w+',markers),file=sys.stderr)
        if '+structType=atomic' in markers or '+mapType=atomic' in markers: text+='@'
        if not isinstance(b,str) and ('+structType=atomic' in ' '.join(structs[b]['comment'])) and '@' not in text: text+='@'
        if pre.count('*')+pre.count('%')>1: print('DEEP',sec,name,jn,pre,file=sys.stderr)
        n=num[1] if num else '0'
        fields.append((jn if not inline else '<',n,pre,b,text,'?' if ptr else '','' if opt or inline else '!'))
    out[(sec,name)]=fields
def ref(sec,b):
    if isinstance(b,str): return b
    return b[1] if b[0]==sec else f'{b[0]}.{b[1]}'
for sec in sorted({k[0] for k in out}):
    print(f'[{sec} {VERSION[sec]} {SECTIONS[sec][1]}]')
    for (s,name) in sorted(k for k in out if k[0]==sec):
        print(' '.join([name]+[f'{j}={n}:{pre}{ref(sec,b)}{text}{ptr}{req}' for j,n,pre,b,text,ptr,req in out[(s,name)]]))
